//! The stack machine that a pickle is a program for, without the instructions that do anything.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{MAX_STEPS, Node, Object, Pickle, Value, node};

/// The state of reading one pickle.
pub(super) struct Machine<'a, 'c> {
    data: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value<'a>>,
    nodes: Vec<Node<'a>>,
    steps: usize,
    allowed: &'c [&'c str],
}

impl<'a, 'c> Machine<'a, 'c> {
    pub(super) fn new(data: &'a [u8], allowed: &'c [&'c str]) -> Self {
        Self {
            data,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            steps: 0,
            allowed,
        }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>> {
        loop {
            let at = self.at;
            match self.step().with_context(|| format!("in the pickle at byte {at}"))? {
                Some(root) => return Ok(Pickle { nodes: self.nodes, root, consumed: self.at }),
                None => charge(&mut self.steps, 1)?,
            }
        }
    }

    /// Runs one opcode; the root value once it was the last.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        let op = self.u8()?;
        match op {
            b'.' => return self.pop().map(Some),
            // Framing and protocol.
            0x80 => {
                let protocol = self.u8()?;
                ensure!(protocol <= 5, "protocol {protocol} is newer than this program knows");
            }
            0x95 => {
                let length = self.u64()?;
                ensure!(length <= self.left() as u64, "a frame of {length} bytes, but {} are left", self.left());
            }
            // Scalars.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let int = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()));
            }
            b'K' => {
                let int = self.u8()?;
                self.push(Value::Int(int.into()));
            }
            b'M' => {
                let int = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(int.into()));
            }
            b'I' => {
                let line = self.line_text()?;
                self.push(match line {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    _ => Value::Int(line.parse().with_context(|| format!("bad integer {line:?}"))?),
                });
            }
            b'L' => {
                let line = self.line_text()?;
                let int = line.trim_end_matches('L').parse().with_context(|| format!("bad integer {line:?}"))?;
                self.push(Value::Int(int));
            }
            0x8a | 0x8b => {
                let length = if op == 0x8a { self.u8()?.into() } else { self.u32()?.into() };
                let bytes = self.take(length)?;
                self.push(long(bytes));
            }
            b'F' => {
                let line = self.line_text()?;
                self.push(Value::Float(line.parse().with_context(|| format!("bad float {line:?}"))?));
            }
            b'G' => {
                let float = f64::from_be_bytes(self.array()?);
                self.push(Value::Float(float));
            }
            // Bytes and text.
            b'T' | b'B' => {
                let length = self.u32()?;
                self.push_bytes(length.into())?;
            }
            b'U' | b'C' => {
                let length = self.u8()?;
                self.push_bytes(length.into())?;
            }
            0x8e | 0x96 => {
                let length = self.u64()?;
                self.push_bytes(length)?;
            }
            b'X' => {
                let length = self.u32()?;
                self.push_text(length.into())?;
            }
            0x8c => {
                let length = self.u8()?;
                self.push_text(length.into())?;
            }
            0x8d => {
                let length = self.u64()?;
                self.push_text(length)?;
            }
            b'S' => {
                let bytes = unquote(self.line()?)?;
                self.push_node(Node::Bytes(bytes));
            }
            b'V' => {
                let text = unescape_unicode(self.line()?)?;
                self.push_node(Node::Text(text));
            }
            // Containers.
            b']' | 0x8f => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b')' => self.push_node(Node::Tuple(Vec::new())),
            b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::List(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Tuple(items));
            }
            0x85..=0x87 => {
                let mut items = vec![Value::None; usize::from(op - 0x84)];
                for item in items.iter_mut().rev() {
                    *item = self.pop()?;
                }
                self.push_node(Node::Tuple(items));
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::Dict(pair_up(&items)?));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.extend(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[(key, value)])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&pair_up(&items)?)?;
            }
            // Stack and memo.
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top);
            }
            b'p' | b'q' | b'r' | 0x94 => {
                let key = if op == 0x94 { self.memo.len() as u64 } else { self.memo_key(op, *b"pqr")? };
                let top = self.top()?;
                self.memo.insert(key, top);
            }
            b'g' | b'h' | b'j' => {
                let key = self.memo_key(op, *b"ghj")?;
                let value = *self.memo.get(&key).with_context(|| format!("memo {key} is not set"))?;
                self.push(value);
            }
            // Classes, and what would have been calls.
            b'c' => {
                let (module, name) = (self.line_text()?, self.line_text()?);
                self.push_class(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |value| match value {
                    Value::Text(text) => Ok(text),
                    _ => Err(anyhow!("the name of a class is not text")),
                };
                self.push_class(text(module)?, text(name)?)?;
            }
            b'R' => {
                let (args, callable) = (self.pop()?, self.pop()?);
                self.push_object(callable, args, true)?;
            }
            0x81 => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.push_object(class, args, false)?;
            }
            0x92 => {
                let (_keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.push_object(class, args, false)?;
            }
            b'i' => {
                let (module, name) = (self.line_text()?, self.line_text()?);
                let args = self.pop_to_mark()?;
                self.push_class(module, name)?;
                let class = self.pop()?;
                let args = self.add(Node::Tuple(args));
                self.push_object(class, args, false)?;
            }
            b'o' => {
                let items = self.pop_to_mark()?;
                let (&class, args) = items.split_first().context("an object without a class")?;
                let args = self.add(Node::Tuple(args.to_vec()));
                self.push_object(class, args, false)?;
            }
            b'b' => {
                let state = self.pop()?;
                match self.top_node()? {
                    Node::Object(object) => object.state = Some(state),
                    _ => bail!("a state for something that is not an object"),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_node(Node::Persistent(id));
            }
            b'P' => {
                let id = Value::Bytes(self.line()?);
                self.push_node(Node::Persistent(id));
            }
            _ => bail!("opcode {op:#04x} is not expected in such a file"),
        }
        Ok(None)
    }

    fn left(&self) -> usize {
        self.data.len() - self.at
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        ensure!(length <= self.left() as u64, "{length} bytes are announced, but {} are left", self.left());
        let bytes = &self.data[self.at..][..length as usize];
        self.at += bytes.len();
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The bytes up to a newline, which is taken too.
    fn line(&mut self) -> Result<&'a [u8]> {
        let rest = &self.data[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').context("a line without an end")?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    fn line_text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.line()?).context("a line that is not text")
    }

    fn memo_key(&mut self, op: u8, [text, short, _]: [u8; 3]) -> Result<u64> {
        if op == text {
            let line = self.line_text()?;
            line.parse().with_context(|| format!("bad memo key {line:?}"))
        } else if op == short {
            Ok(self.u8()?.into())
        } else {
            Ok(self.u32()?.into())
        }
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(value);
    }

    fn push_bytes(&mut self, length: u64) -> Result<()> {
        let bytes = self.take(length)?;
        self.push(Value::Bytes(bytes));
        Ok(())
    }

    fn push_text(&mut self, length: u64) -> Result<()> {
        let text = std::str::from_utf8(self.take(length)?).context("text that is not UTF-8")?;
        self.push(Value::Text(text));
        Ok(())
    }

    fn add(&mut self, node: Node<'a>) -> Value<'a> {
        // Fits: there are at most as many nodes as steps.
        self.nodes.push(node);
        Value::Node((self.nodes.len() - 1) as u32)
    }

    fn push_node(&mut self, node: Node<'a>) {
        let value = self.add(node);
        self.push(value);
    }

    fn push_class(&mut self, module: &str, name: &str) -> Result<()> {
        let module = match module {
            "__builtin__" => "builtins",
            "copy_reg" => "copyreg",
            other => other,
        };
        let full = format!("{module}.{name}");
        let named = |allowed: &&str| match allowed.strip_suffix('*') {
            Some(package) => full.starts_with(package),
            None => **allowed == full,
        };
        ensure!(
            self.allowed.iter().any(named) || full == "copyreg._reconstructor" || full == "builtins.object",
            "it asks for {:?}, which such a file has no need of; nothing of it was run",
            full.chars().take(200).collect::<String>()
        );
        self.push_node(Node::Class(full));
        Ok(())
    }

    /// `called`: through REDUCE, where a helper can stand for the class.
    fn push_object(&mut self, class: Value<'a>, args: Value<'a>, called: bool) -> Result<()> {
        let (Value::Node(mut class), Some(Node::Class(name))) = (class, node(&self.nodes, class)) else {
            bail!("an object of something that is not a class");
        };
        let Some(Node::Tuple(arguments)) = node(&self.nodes, args) else { bail!("arguments that are not a tuple") };
        let mut items = Vec::new();
        if called && name == "copyreg._reconstructor" {
            // Protocols 0 and 1 make instances of a class by `_reconstructor(class, base, state of the base)`.
            match arguments.first() {
                Some(&Value::Node(of)) if matches!(self.nodes.get(of as usize), Some(Node::Class(_))) => class = of,
                _ => bail!("an object of something that is not a class"),
            }
        } else if called
            && name == "collections.OrderedDict"
            && let Some(Node::List(list)) = arguments.first().and_then(|&list| node(&self.nodes, list))
        {
            // Python 2 gives the entries as a list of pairs. Charged before it is copied: many objects can share one.
            let pairs = list.len();
            charge(&mut self.steps, pairs)?;
            items.reserve_exact(pairs);
            for &pair in list {
                match node(&self.nodes, pair) {
                    Some(Node::List(kv) | Node::Tuple(kv)) if kv.len() == 2 => items.push((kv[0], kv[1])),
                    _ => bail!("an OrderedDict of something that is not pairs"),
                }
            }
        }
        self.push_node(Node::Object(Box::new(Object { class, args, state: None, items })));
        Ok(())
    }

    /// A value of the stack above the last mark.
    fn pop(&mut self) -> Result<Value<'a>> {
        ensure!(self.stack.len() > self.marks.last().copied().unwrap_or(0), "the stack is empty");
        self.stack.pop().context("the stack is empty")
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().context("no mark on the stack")?;
        ensure!(mark <= self.stack.len(), "the stack is shorter than its mark");
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Value<'a>> {
        self.stack.last().copied().context("the stack is empty")
    }

    fn top_node(&mut self) -> Result<&mut Node<'a>> {
        let Value::Node(index) = self.top()? else { bail!("a scalar where a container is needed") };
        self.nodes.get_mut(index as usize).context("a value that does not exist")
    }

    fn extend(&mut self, items: &[Value<'a>]) -> Result<()> {
        match self.top_node()? {
            Node::List(list) => list.extend(items),
            _ => bail!("items for something that is not a list"),
        }
        Ok(())
    }

    fn set_items(&mut self, pairs: &[(Value<'a>, Value<'a>)]) -> Result<()> {
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(pairs),
            Node::Object(object) => object.items.extend(pairs),
            _ => bail!("entries for something that is not a dict"),
        }
        Ok(())
    }
}

fn charge(total: &mut usize, steps: usize) -> Result<()> {
    *total = total.saturating_add(steps);
    ensure!(*total <= MAX_STEPS, "the pickle takes more than {MAX_STEPS} steps");
    Ok(())
}

fn pair_up<'a>(items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    ensure!(rest.is_empty(), "a key without a value");
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

fn long(bytes: &[u8]) -> Value<'_> {
    if bytes.len() > 8 {
        return Value::BigInt(bytes);
    }
    let negative = bytes.last().is_some_and(|&b| b >= 0x80);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// The bytes of a Python 2 string literal.
fn unquote(literal: &[u8]) -> Result<Vec<u8>> {
    let literal = literal.trim_ascii();
    let ([b'\'', inner @ .., b'\''] | [b'"', inner @ .., b'"']) = literal else { bail!("a string without quotes") };
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next().context("a string that ends in a backslash")? {
            b'n' => bytes.push(b'\n'),
            b't' => bytes.push(b'\t'),
            b'r' => bytes.push(b'\r'),
            b'x' => {
                let digits = [rest.next(), rest.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = digits else { bail!("a bad \\x escape") };
                bytes.push((high * 16 + low) as u8);
            }
            plain @ (b'\\' | b'\'' | b'"') => bytes.push(plain),
            other => bail!("the escape \\{} is not expected", char::from(other)),
        }
    }
    Ok(bytes)
}

/// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape_unicode(line: &[u8]) -> Result<String> {
    let latin1 = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.windows(2).position(|w| matches!(w, br"\u" | br"\U")) {
        let digits = if rest[at + 1] == b'u' { 4 } else { 8 };
        let code = rest.get(at + 2..at + 2 + digits).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u32::from_str_radix(hex, 16).ok()).context("a bad \\u escape")?;
        text.push_str(&latin1(&rest[..at]));
        text.push(char::from_u32(code).context("a bad \\u escape")?);
        rest = &rest[at + 2 + digits..];
    }
    text.push_str(&latin1(rest));
    Ok(text)
}
