//! Reads JSON (RFC 8259): what a status page says, from a node that may be anything.
//!
//! A reader of our own since a probe shall cost no dependency. It takes what the grammar takes, and is
//! bounded: its input is as long as the caller allows, and the depth is limited here.

use std::borrow::Cow;

/// Levels of arrays and objects. The deepest page that is read has four.
const DEEPEST: usize = 16;

/// A value. Text without escapes is borrowed from the input.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// As written: a number may be larger than any type of ours.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

/// Not JSON, or deeper than we read; where that shows, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotJson {
    at: usize,
}

impl std::fmt::Display for NotJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no JSON at byte {}", self.at)
    }
}

impl std::error::Error for NotJson {}

impl<'a> Value<'a> {
    /// Reads one value that fills the text.
    pub(super) fn read(text: &'a [u8]) -> Result<Self, NotJson> {
        let text = std::str::from_utf8(text).map_err(|error| NotJson {
            at: error.valid_up_to(),
        })?;
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.skip_space();
        if reader.at == text.len() {
            Ok(value)
        } else {
            Err(reader.wrong())
        }
    }

    /// The member of an object with this name: the last one, should there be several.
    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let mut named = members.iter().rev().filter(|(key, _)| key == name);
        Some(&named.next()?.1)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(bool) => Some(*bool),
            _ => None,
        }
    }

    /// A whole number that fits.
    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        self.skip_space();
        match self.peek() {
            Some(b'n') => self.word("null", Value::Null),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'[' | b'{') if depth == DEEPEST => Err(self.wrong()),
            Some(b'[') => self.array(depth + 1),
            Some(b'{') => self.object(depth + 1),
            _ => Err(self.wrong()),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        let mut items = Vec::new();
        self.at += 1;
        if self.takes(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            if self.takes(b']') {
                return Ok(Value::Array(items));
            }
            self.must_take(b',')?;
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'a>, NotJson> {
        let mut members = Vec::new();
        self.at += 1;
        if self.takes(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.wrong());
            }
            let name = self.string()?;
            self.must_take(b':')?;
            members.push((name, self.value(depth)?));
            if self.takes(b'}') {
                return Ok(Value::Object(members));
            }
            self.must_take(b',')?;
        }
    }

    /// Borrows up to the first escape; copies from there on.
    fn string(&mut self) -> Result<Cow<'a, str>, NotJson> {
        self.at += 1;
        let mut read = Cow::Borrowed("");
        loop {
            let start = self.at;
            while self
                .peek()
                .is_some_and(|c| !matches!(c, b'"' | b'\\' | 0..0x20))
            {
                self.at += 1;
            }
            // Cut before an ASCII character, so between characters.
            read += &self.text[start..self.at];
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(read);
                }
                Some(b'\\') => read.to_mut().push(self.escape()?),
                _ => return Err(self.wrong()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        self.at += 1;
        let escaped = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.code_point();
            }
            _ => return Err(self.wrong()),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// Four digits, or twice four for a character beyond the first plane. Half a pair is refused.
    fn code_point(&mut self) -> Result<char, NotJson> {
        let unit = self.four_digits()?;
        let point = if (0xD800..0xDC00).contains(&unit) {
            if !self.text[self.at..].starts_with("\\u") {
                return Err(self.wrong());
            }
            self.at += 2;
            let low = self.four_digits()?;
            if !(0xDC00..0xE000).contains(&low) {
                return Err(self.wrong());
            }
            0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
        } else {
            unit
        };
        char::from_u32(point).ok_or_else(|| self.wrong())
    }

    fn four_digits(&mut self) -> Result<u32, NotJson> {
        let mut number = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|c| char::from(c).to_digit(16));
            number = number * 16 + digit.ok_or_else(|| self.wrong())?;
            self.at += 1;
        }
        Ok(number)
    }

    fn number(&mut self) -> Result<Value<'a>, NotJson> {
        let start = self.at;
        self.skips(b'-');
        // No digit follows a leading zero.
        if !self.skips(b'0') {
            self.digits()?;
        }
        if self.skips(b'.') {
            self.digits()?;
        }
        if self.skips(b'e') || self.skips(b'E') {
            let _ = self.skips(b'+') || self.skips(b'-');
            self.digits()?;
        }
        Ok(Value::Number(&self.text[start..self.at]))
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.wrong());
        }
        Ok(())
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, NotJson> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong());
        }
        self.at += word.len();
        Ok(value)
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Takes `c` behind white space, if it is there.
    fn takes(&mut self, c: u8) -> bool {
        self.skip_space();
        self.skips(c)
    }

    fn must_take(&mut self, c: u8) -> Result<(), NotJson> {
        if self.takes(c) {
            Ok(())
        } else {
            Err(self.wrong())
        }
    }

    /// Takes `c` if it is next.
    fn skips(&mut self, c: u8) -> bool {
        let is_next = self.peek() == Some(c);
        self.at += usize::from(is_next);
        is_next
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self) -> NotJson {
        NotJson { at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value<'_>, NotJson> {
        Value::read(text.as_bytes())
    }

    #[test]
    fn members_are_found_by_name_and_the_last_of_a_name_counts() {
        let value =
            read(r#" {"a": 1, "b": [true, null, "x"], "a": 18446744073709551615} "#).unwrap();
        assert_eq!(value.member("a").unwrap().as_u64(), Some(u64::MAX));
        let items = value.member("b").unwrap().as_array().unwrap();
        assert_eq!(items[0].as_bool(), Some(true));
        assert_eq!(items[1], Value::Null);
        assert_eq!(items[2].as_str(), Some("x"));
        assert!(value.member("c").is_none() && items[0].member("a").is_none());
    }

    #[test]
    fn a_number_that_is_not_whole_or_does_not_fit_is_no_u64() {
        for number in ["18446744073709551616", "-1", "1.0", "1e3", "-0"] {
            assert_eq!(read(number).unwrap().as_u64(), None, "{number}");
        }
        assert_eq!(read("0").unwrap().as_u64(), Some(0));
        assert_eq!(read("\"1\"").unwrap().as_u64(), None);
    }

    #[test]
    fn escapes_are_read_and_half_a_pair_is_refused() {
        let text = r#""a\"\\\/\b\f\n\r\té\u00e9\uD83D\uDE00z""#;
        let value = read(text).unwrap();
        assert_eq!(value.as_str(), Some("a\"\\/\u{8}\u{c}\n\r\téé😀z"));
        for half in [
            r#""\uD83D""#,
            r#""\uD83Dx""#,
            r#""\uD83D\n""#,
            r#""\uDE00""#,
            r#""\uD83D\u0041""#,
        ] {
            assert!(read(half).is_err(), "{half}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused_where_it_ends_to_be() {
        let table = [
            ("", 0),
            ("  ", 2),
            ("nul", 0),
            ("{\"a\" 1}", 5),
            ("{a: 1}", 1),
            ("[1 2]", 3),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("\"a", 2),
            ("\"\n\"", 1),
            ("\"\\x\"", 2),
            ("\"\\u12g4\"", 5),
            ("01", 1),
            ("-", 1),
            ("1.", 2),
            ("1e", 2),
            ("+1", 0),
            ("1 1", 2),
            ("[", 1),
            ("NaN", 0),
        ];
        for (text, at) in table {
            assert_eq!(read(text), Err(NotJson { at }), "{text}");
        }
        assert_eq!(Value::read(b"\"\xff\""), Err(NotJson { at: 1 }));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(&nested(DEEPEST)).is_ok());
        assert_eq!(read(&nested(DEEPEST + 1)), Err(NotJson { at: DEEPEST }));
        // An attack on the stack.
        assert!(read(&"[{\"a\":".repeat(100_000)).is_err());
    }
}
