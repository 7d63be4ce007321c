//! The parser.

use super::lexer::{Place, Token, tokens};
use crate::ir::{DType, Dim, Graph, GraphError, Scalar, TensorType, ValueId};
use crate::ops::{Attribute, AttributeMut, Op};
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

    /// A value of the kind that `place` holds.
    fn attribute(&mut self, place: &AttributeMut<'_>) -> Result<Attribute, ParseError> {
        Ok(match place {
            AttributeMut::Number(_) => Attribute::Number(self.number()?),
            AttributeMut::Scalar(_) => Attribute::Scalar(self.scalar()?),
            AttributeMut::Count(_) => Attribute::Count(self.count()?),
            AttributeMut::Flag(_) => Attribute::Flag(self.flag()?),
            AttributeMut::DType(_) => Attribute::DType(self.dtype()?),
            AttributeMut::Type(_) => Attribute::Type(self.ty()?),
            AttributeMut::Dim(_) => Attribute::Dim(self.dim()?),
            AttributeMut::Dims(_) => {
                self.sign('[')?;
                Attribute::Dims(self.list(']', Self::dim)?)
            }
            AttributeMut::Axes(_) => {
                self.sign('[')?;
                Attribute::Axes(self.list(']', Self::count)?)
            }
        })
    }

    fn flag(&mut self) -> Result<bool, ParseError> {
        match self.peek() {
            Token::Word(word) if word == "true" || word == "false" => Ok(self.next() == Token::Word("true".to_owned())),
            _ => self.expected("`true` or `false`"),
        }
    }

    fn count(&mut self) -> Result<usize, ParseError> {
        let number = match self.peek() {
            Token::Number(digits) => digits.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => {
                self.at += 1;
                Ok(number)
            }
            None => self.expected("a whole number"),
        }
    }

    fn number(&mut self) -> Result<f64, ParseError> {
        let negative = self.eat('-');
        let number: Option<f64> = match self.peek() {
            Token::Number(digits) => digits.parse().ok(),
            Token::Word(word) if word == "inf" => Some(f64::INFINITY),
            Token::Word(word) if word == "NaN" => Some(f64::NAN),
            _ => None,
        };
        match number {
            Some(number) => {
                self.at += 1;
                Ok(if negative { -number } else { number })
            }
            None => self.expected("a number"),
        }
    }

    /// `1.0` or `1.0/(N - 1)`.
    fn scalar(&mut self) -> Result<Scalar, ParseError> {
        let value = self.number()?;
        if !self.eat('/') {
            return Ok(Scalar::from(value));
        }
        self.sign('(')?;
        let over = self.dim()?;
        self.sign(')')?;
        Ok(Scalar { value, over })
    }

    fn dtype(&mut self) -> Result<DType, ParseError> {
        let dtype = match self.peek() {
            Token::Word(word) => DType::from_name(word),
            _ => None,
        };
        match dtype {
            Some(dtype) => {
                self.at += 1;
                Ok(dtype)
            }
            None => self.expected("an element type: f32, bf16, f16 or i32"),
        }
    }

    fn ty(&mut self) -> Result<TensorType, ParseError> {
        let dtype = self.dtype()?;
        self.sign('[')?;
        Ok(TensorType::new(dtype, self.list(']', Self::dim)?))
    }

    /// A sum of products: `B*N - 2*K + 1`.
    fn dim(&mut self) -> Result<Dim, ParseError> {
        let negative = self.eat('-');
        let mut dim = self.term(negative)?;
        loop {
            if self.eat('+') {
                dim = &dim + &self.term(false)?;
            } else if self.eat('-') {
                dim = &dim + &self.term(true)?;
            } else {
                return Ok(dim);
            }
        }
    }

    fn term(&mut self, negative: bool) -> Result<Dim, ParseError> {
        let mut coefficient = if negative { -1i128 } else { 1 };
        let mut symbols = Vec::new();
        loop {
            match self.peek() {
                Token::Number(digits) => {
                    let factor =
                        digits.parse::<i64>().map(i128::from).or_else(|_| digits.parse::<u64>().map(i128::from));
                    let product = factor.ok().and_then(|factor| coefficient.checked_mul(factor));
                    let Some(product) = product else { return self.expected("a whole number that fits 64 bits") };
                    coefficient = product;
                    self.at += 1;
                }
                Token::Word(word) if self.graph.symbols.contains(word) => {
                    symbols.push(word.clone());
                    self.at += 1;
                }
                _ => return self.expected("a size: a whole number or a declared symbol"),
            }
            if !self.eat('*') {
                break;
            }
        }
        match i64::try_from(coefficient) {
            Ok(coefficient) => Ok(Dim::from_terms([(symbols, coefficient)])),
            Err(_) => self.expected("sizes that fit 64 bits"),
        }
    }
}
