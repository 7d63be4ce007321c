//! Words, numbers and signs, each with its place in the text.

use super::is_bare;

/// Line and column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub line: usize,
    pub column: usize,
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A bare word: letters, digits, `_` and `.`, not starting with a digit.
    Word(String),
    /// A quoted name.
    Quoted(String),
    /// Digits, perhaps with a fraction and an exponent, as written.
    Number(String),
    /// `%12`.
    Result(usize),
    /// `%scores`.
    Named(String),
    /// Any other character.
    Sign(char),
    /// End of a line that holds something.
    NewLine,
    /// End of the text.
    End,
}

impl Token {
    /// The token in an error message.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(text) | Token::Number(text) => format!("`{text}`"),
            Token::Quoted(text) => format!("{text:?}"),
            Token::Result(number) => format!("`%{number}`"),
            Token::Named(name) => format!("`%{name}`"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::NewLine => "the end of the line".to_owned(),
            Token::End => "the end of the text".to_owned(),
        }
    }
}

/// Splits a text into tokens. The last is `End`.
pub(super) fn tokens(text: &str) -> Result<Vec<(Token, Place)>, (Place, &'static str)> {
    let mut tokens = Vec::new();
    let mut last = Place { line: 1, column: 1 };
    for (number, line) in text.lines().enumerate() {
        let mut lexer = Lexer { chars: line.chars().collect(), at: 0, line: number + 1 };
        let before = tokens.len();
        while let Some((token, place)) = lexer.next()? {
            tokens.push((token, place));
        }
        last = lexer.place();
        if tokens.len() > before {
            tokens.push((Token::NewLine, last));
        }
    }
    tokens.push((Token::End, last));
    Ok(tokens)
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn place(&self) -> Place {
        Place { line: self.line, column: self.at + 1 }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let taken: String = rest.iter().copied().take_while(|c| keep(*c)).collect();
        self.at += taken.chars().count();
        taken
    }

    fn next(&mut self) -> Result<Option<(Token, Place)>, (Place, &'static str)> {
        self.take_while(char::is_whitespace);
        let place = self.place();
        let token = match self.peek() {
            None | Some(';') => return Ok(None),
            Some('"') => self.quoted()?,
            Some('%') => {
                self.at += 1;
                let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
                match name.parse() {
                    Ok(number) => Token::Result(number),
                    Err(_) if is_bare(&name) => Token::Named(name),
                    Err(_) => return Err((place, "a number or a name after `%`")),
                }
            }
            Some(c) if c.is_ascii_digit() => self.number(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                Token::Word(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.'))
            }
            Some(sign) => {
                self.at += 1;
                Token::Sign(sign)
            }
        };
        Ok(Some((token, place)))
    }

    fn number(&mut self) -> Token {
        let mut text = self.take_while(|c| c.is_ascii_digit() || c == '.');
        if matches!(self.peek(), Some('e' | 'E')) {
            self.at += 1;
            text.push('e');
            if self.peek() == Some('-') {
                self.at += 1;
                text.push('-');
            }
            text += &self.take_while(|c| c.is_ascii_digit());
        }
        Token::Number(text)
    }

    /// The inverse of `{:?}` of a string.
    fn quoted(&mut self) -> Result<Token, (Place, &'static str)> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let place = self.place();
            let c = self.peek().ok_or((place, "a closing `\"`"))?;
            self.at += 1;
            match c {
                '"' => return Ok(Token::Quoted(text)),
                '\\' => text
                    .push(self.escape().ok_or((place, "an escape: \\\", \\\\, \\', \\n, \\r, \\t, \\0 or \\u{..}"))?),
                _ => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            '0' => '\0',
            '"' | '\\' | '\'' => c,
            'u' => {
                (self.peek()? == '{').then_some(())?;
                self.at += 1;
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                (self.peek()? == '}').then_some(())?;
                self.at += 1;
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            _ => return None,
        })
    }
}
