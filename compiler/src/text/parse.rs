//! The parser: lines and what they add to the graph; `parse/values.rs` reads attributes, types and sizes.

mod values;

use super::lexer::{Place, Token, tokens};
use crate::ir::{Graph, GraphError, TensorType, ValueId};
use crate::ops::Op;
use crate::verify::{is_identifier, verify};
use std::collections::HashMap;

/// A text that is not a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What was expected and what stands there, or which rule of the graph is broken.
    pub message: String,
}

/// Reads the text form.
///
/// # Errors
/// [`ParseError`] says where and what was expected; a graph that parses is well formed.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let tokens = tokens(text).map_err(|(place, expected)| error(place, format!("expected {expected}")))?;
    let mut parser = Parser { tokens, at: 0, graph: Graph::default(), sources: HashMap::new(), ..Parser::default() };
    parser.header()?;
    while parser.line()? {}
    verify(&parser.graph).map_err(|broken| error(parser.place(), broken.to_string()))?;
    Ok(parser.graph)
}

fn error(place: Place, message: String) -> ParseError {
    ParseError { line: place.line, column: place.column, message }
}

#[derive(Default)]
struct Parser {
    tokens: Vec<(Token, Place)>,
    at: usize,
    graph: Graph,
    /// Inputs and parameters by name.
    sources: HashMap<String, ValueId>,
    /// Values of `%0`, `%1`, ...
    results: Vec<ValueId>,
    /// Values of `%scores`, ...
    named: HashMap<String, ValueId>,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn place(&self) -> Place {
        let last = self.tokens.last().map_or(Place { line: 1, column: 1 }, |(_, place)| *place);
        self.tokens.get(self.at).map_or(last, |(_, place)| *place)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn expected<T>(&self, what: &str) -> Result<T, ParseError> {
        Err(error(self.place(), format!("expected {what}, found {}", self.peek().describe())))
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        self.at += usize::from(found);
        found
    }

    fn sign(&mut self, sign: char) -> Result<(), ParseError> {
        if self.eat(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    fn end_of_line(&mut self) -> Result<(), ParseError> {
        match self.peek() {
            Token::NewLine => {
                self.at += 1;
                Ok(())
            }
            Token::End => Ok(()),
            _ => self.expected("the end of the line"),
        }
    }

    /// A word the grammar gives a meaning: no dots.
    fn word(&mut self, what: &str) -> Result<String, ParseError> {
        match self.peek() {
            Token::Word(word) if is_identifier(word) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => self.expected(what),
        }
    }

    fn name(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::Word(_) | Token::Quoted(_) => match self.next() {
                Token::Word(name) | Token::Quoted(name) => Ok(name),
                _ => self.expected("a name"),
            },
            _ => self.expected("a name"),
        }
    }

    /// Items separated by commas up to `close`, whose opening sign was read.
    fn list<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(',') {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
    }

    fn header(&mut self) -> Result<(), ParseError> {
        if *self.peek() != Token::Word("graph".to_owned()) {
            return self.expected("`graph NAME[SYMBOLS]`");
        }
        self.at += 1;
        self.graph.name = self.name()?;
        self.sign('[')?;
        self.graph.symbols = self.list(']', |parser| parser.word("a symbol"))?;
        self.end_of_line()
    }

    /// One line after the header; false at the end.
    fn line(&mut self) -> Result<bool, ParseError> {
        match self.peek() {
            Token::End => return Ok(false),
            Token::Result(_) | Token::Named(_) => self.node()?,
            Token::Word(word) => {
                let word = word.clone();
                let place = self.place();
                self.at += 1;
                match word.as_str() {
                    "input" | "param" => self.source(word == "input")?,
                    "output" => {
                        let name = self.name()?;
                        self.sign('=')?;
                        let value = self.value()?;
                        self.graph.output(&name, value);
                    }
                    "update" => {
                        let param = self.value()?;
                        self.sign('=')?;
                        let new = self.value()?;
                        self.graph.update(param, new).map_err(|e| error(place, e.to_string()))?;
                    }
                    _ => {
                        self.at -= 1;
                        return self.expected("`input`, `param`, `%NAME: .. =`, `output` or `update`");
                    }
                }
            }
            _ => return self.expected("`input`, `param`, `%NAME: .. =`, `output` or `update`"),
        }
        self.end_of_line()?;
        Ok(true)
    }

    fn source(&mut self, input: bool) -> Result<(), ParseError> {
        let place = self.place();
        let name = self.name()?;
        self.sign(':')?;
        let ty = self.ty()?;
        let added = if input { self.graph.input(&name, ty) } else { self.graph.param(&name, ty) };
        let id = added.map_err(|e| error(place, e.to_string()))?;
        self.sources.insert(name, id);
        Ok(())
    }

    fn node(&mut self) -> Result<(), ParseError> {
        let place = self.place();
        let mut declared = Vec::new();
        let mut next = self.results.len();
        loop {
            let (name, ty) = self.declaration(next)?;
            next += usize::from(name.is_none());
            declared.push((name, ty));
            if !self.eat(',') {
                break;
            }
        }
        self.sign('=')?;
        let mut op = self.operation()?;
        self.sign('(')?;
        let operands = self.list(')', Self::value)?;
        self.attributes(&mut op)?;
        let name = op.name();
        let values = self.graph.push(op, &operands).map_err(|e: GraphError| error(place, e.to_string()))?;
        let inferred: Vec<String> = values.iter().map(|id| self.graph.ty(*id).to_string()).collect();
        let types: Vec<String> = declared.iter().map(|(_, ty)| ty.to_string()).collect();
        if inferred != types {
            let message = format!("{name} gives {}, not {}", inferred.join(" and "), types.join(" and "));
            return Err(error(place, message));
        }
        for ((name, _), id) in declared.into_iter().zip(values) {
            match name {
                None => self.results.push(id),
                Some(name) => {
                    self.graph.name_value(id, &name).map_err(|e| error(place, e.to_string()))?;
                    self.named.insert(name, id);
                }
            }
        }
        Ok(())
    }

    /// `%name: type`, or `%N: type` where N must be the next number.
    fn declaration(&mut self, next: usize) -> Result<(Option<String>, TensorType), ParseError> {
        let name = match self.peek() {
            Token::Result(number) if *number == next => None,
            Token::Named(name) => Some(name.clone()),
            _ => return self.expected(&format!("`%{next}` or `%name`")),
        };
        self.at += 1;
        self.sign(':')?;
        Ok((name, self.ty()?))
    }

    fn operation(&mut self) -> Result<Op, ParseError> {
        let place = self.place();
        let name = self.word("an operation")?;
        Op::prototype(&name).ok_or_else(|| error(place, format!("there is no operation `{name}`")))
    }

    fn value(&mut self) -> Result<ValueId, ParseError> {
        let place = self.place();
        if let Token::Result(number) = *self.peek() {
            self.at += 1;
            let known = self.results.get(number).copied();
            return known.ok_or_else(|| error(place, format!("%{number} is not defined above")));
        }
        if let Token::Named(name) = self.peek().clone() {
            self.at += 1;
            return self.named.get(&name).copied().ok_or_else(|| error(place, format!("%{name} is not defined above")));
        }
        let name = self.name()?;
        let known = self.sources.get(&name).copied();
        known.ok_or_else(|| error(place, format!("there is no input or parameter `{name}`")))
    }

    fn attributes(&mut self, op: &mut Op) -> Result<(), ParseError> {
        let mut places = op.attributes_mut();
        if places.is_empty() {
            return Ok(());
        }
        self.sign('{')?;
        for (position, (name, attribute)) in places.iter_mut().enumerate() {
            if position > 0 {
                self.sign(',')?;
            }
            if *self.peek() != Token::Word((*name).to_owned()) {
                return self.expected(&format!("the attribute `{name}`"));
            }
            self.at += 1;
            self.sign(':')?;
            let value = self.attribute(attribute)?;
            if !attribute.set(value) {
                return self.expected(&format!("another kind of value for `{name}`"));
            }
        }
        self.sign('}')
    }
}
