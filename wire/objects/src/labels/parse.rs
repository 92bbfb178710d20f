//! The grammar of selector texts: terms joined by commas, each `key`, `!key`, `key op value` or `key in (…)`.
//!
//! A hand-written scanner as upstream's, because words may contain any byte that is no operator: `in` and
//! `notin` are keys where a key is expected and operators after one.

use super::{Operator, REQUIREMENTS_MAX, Requirement, SelectorError};
use crate::field_error::quote;
use crate::names;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    Comma,
    Not,
    Compare(Operator),
    End,
}

impl Token {
    fn text(&self) -> String {
        match self {
            Token::Word(it) => it.clone(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => ",".to_owned(),
            Token::Not => "!".to_owned(),
            Token::Compare(it) => match it {
                Operator::DoubleEquals => "==",
                Operator::NotEquals => "!=",
                Operator::GreaterThan => ">",
                Operator::LessThan => "<",
                _ => "=",
            }
            .to_owned(),
            Token::End => String::new(),
        }
    }
}

pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    pub(super) fn new(text: &str) -> Self {
        Self { tokens: scan(text), at: 0 }
    }

    pub(super) fn selector(mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        if *self.peek() == Token::End {
            return Ok(requirements);
        }
        loop {
            if requirements.len() == REQUIREMENTS_MAX {
                return Err(SelectorError::TooLong);
            }
            requirements.push(self.requirement()?);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Comma if matches!(self.peek(), Token::Word(_) | Token::Not) => {}
                Token::Comma => {
                    return Err(syntax(&self.next(), "identifier after ','"));
                }
                other => return Err(syntax(&other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = *self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(it) => it,
            other => return Err(bad(&syntax(&other, "!, identifier, or 'end of string'"))),
        };
        if let Some(why) = names::qualified_name(&key).first() {
            return Err(invalid("key", &key, why));
        }
        let ends = matches!(self.peek(), Token::Comma | Token::End);
        if negated || ends {
            let operator = match negated {
                true => Operator::NotExists,
                false => Operator::Exists,
            };
            return Ok(Requirement::new(&key, operator, Vec::new()));
        }
        let operator = match self.next() {
            Token::Compare(it) => it,
            Token::Word(it) if it == "in" => Operator::In,
            Token::Word(it) if it == "notin" => Operator::NotIn,
            other => {
                return Err(bad(&syntax(
                    &other,
                    "in, notin, =, ==, !=, gt, lt or 'end of string'",
                )));
            }
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.set()?,
            _ => vec![self.value()],
        };
        check_values(&key, operator, &values)?;
        Ok(Requirement::new(&key, operator, values))
    }

    /// After `=`: a word, or nothing.
    fn value(&mut self) -> String {
        match self.peek().clone() {
            Token::Word(it) => {
                self.next();
                it
            }
            _ => String::new(),
        }
    }

    /// `(a,b)`; an empty place is the empty value.
    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            other => return Err(bad(&syntax(&other, "'('"))),
        }
        let mut values = vec![self.value()];
        loop {
            match self.next() {
                Token::Close => return Ok(values),
                Token::Comma => values.push(self.value()),
                other => return Err(bad(&syntax(&other, "',', ')' or identifier"))),
            }
        }
    }

    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }
}

fn syntax(found: &Token, expected: &'static str) -> SelectorError {
    SelectorError::Syntax { found: found.text(), expected }
}

fn bad(why: &SelectorError) -> SelectorError {
    SelectorError::Requirement(why.to_string())
}

fn invalid(part: &str, value: &str, why: &str) -> SelectorError {
    SelectorError::Requirement(format!("{part}: Invalid value: {}: {why}", quote(value)))
}

fn check_values(key: &str, operator: Operator, values: &[String]) -> Result<(), SelectorError> {
    for (at, value) in values.iter().enumerate() {
        let part = format!("values[{at}][{key}]");
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            if value.parse::<i64>().is_err() {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(invalid(&format!("values[{at}]"), value, why));
            }
        } else if let Some(why) = names::label_value(value).first() {
            return Err(invalid(&part, value, why));
        }
    }
    Ok(())
}

fn scan(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, len) = match first {
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '>' => (Token::Compare(Operator::GreaterThan), 1),
            '<' => (Token::Compare(Operator::LessThan), 1),
            '=' if rest.starts_with("==") => (Token::Compare(Operator::DoubleEquals), 2),
            '=' => (Token::Compare(Operator::Equals), 1),
            '!' if rest.starts_with("!=") => (Token::Compare(Operator::NotEquals), 2),
            '!' => (Token::Not, 1),
            _ => {
                let end = rest
                    .find(|it: char| it.is_whitespace() || "()=!,<>".contains(it))
                    .unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    tokens
}
