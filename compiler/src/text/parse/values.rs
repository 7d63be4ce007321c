//! Attributes, element types, shapes and sizes.

use super::{ParseError, Parser};
use crate::ir::{DType, Dim, Scalar, TensorType};
use crate::ops::{Attribute, AttributeMut};
use crate::text::lexer::Token;

impl Parser {
    /// A value of the kind that `place` holds.
    pub(super) fn attribute(&mut self, place: &AttributeMut<'_>) -> Result<Attribute, ParseError> {
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

    pub(super) fn ty(&mut self) -> Result<TensorType, ParseError> {
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
