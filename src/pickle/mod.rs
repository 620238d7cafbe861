//! Python pickles read as data. Nothing in them is executed, imported or called: a class or function that a pickle
//! names must be on the caller's list, and then it becomes an inert record of its name, its arguments and its state.
//!
//! Protocols 0 to 5, Python 2 and 3. All containers live in one arena and refer to each other by index, so a value
//! that is shared many times is stored once, a cycle is harmless, and dropping the deepest nest is flat. Bytes and
//! text are borrowed from the file. A pickle may take [`MAX_STEPS`] opcodes and items, which bounds the memory that it
//! can claim whatever its size.

mod machine;

use std::borrow::Cow;

use anyhow::Result;

use machine::Machine;

/// Opcodes plus copied items that a pickle may take. The largest checkpoints and body models take a tenth of it.
pub const MAX_STEPS: usize = 1 << 20;

/// A value: a scalar, bytes of the file, or a reference into the arena of its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A longer integer, little-endian two's complement.
    BigInt(&'a [u8]),
    /// A float.
    Float(f64),
    /// `bytes`, or Python 2's `str`.
    Bytes(&'a [u8]),
    /// Text.
    Text(&'a str),
    /// Anything that holds other values.
    Node(u32),
}

/// What the arena holds.
#[derive(Debug)]
enum Node<'a> {
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Value<'a>>),
    Tuple(Vec<Value<'a>>),
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Class(String),
    Object(Box<Object<'a>>),
    Persistent(Value<'a>),
}

/// An inert record of something that Python would have made by a call.
#[derive(Debug)]
pub struct Object<'a> {
    class: u32,
    args: Value<'a>,
    state: Option<Value<'a>>,
    items: Vec<(Value<'a>, Value<'a>)>,
}

impl<'a> Object<'a> {
    /// The arguments of the call, a tuple.
    pub fn args(&self) -> Value<'a> {
        self.args
    }

    /// What `__setstate__` would have been given.
    pub fn state(&self) -> Option<Value<'a>> {
        self.state
    }
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Value<'a>,
    consumed: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `data`. `allowed` lists the classes and functions that may be named in it, as
    /// `module.name` with Python 3's names for `builtins` and `copyreg`, or `package.*`. Errors say the opcode's offset.
    pub fn parse(data: &'a [u8], allowed: &[&str]) -> Result<Self> {
        Machine::new(data, allowed).run()
    }

    /// The value that the pickle holds.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// Bytes that the pickle took; another one may follow.
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        node(&self.nodes, value)
    }

    /// Entries of a dict, or of an object that was filled like one (`OrderedDict`).
    pub fn pairs(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            Node::Object(object) if self.class_name(object).starts_with("collections.") => Some(&object.items),
            _ => None,
        }
    }

    /// The entry of a dict (see [`Self::pairs`]) whose key is this text. The last one counts, as in Python.
    pub fn get(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        self.pairs(dict)?.iter().rev().find(|(k, _)| self.bytes(*k) == Some(key.as_bytes())).map(|(_, v)| *v)
    }

    /// Items of a list or tuple.
    pub fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::List(items) | Node::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Bytes, or text as UTF-8.
    pub fn bytes<'s>(&'s self, value: Value<'a>) -> Option<&'s [u8]>
    where
        'a: 's,
    {
        match value {
            Value::Bytes(bytes) => Some(bytes),
            Value::Text(text) => Some(text.as_bytes()),
            _ => match self.node(value)? {
                Node::Bytes(bytes) => Some(bytes),
                Node::Text(text) => Some(text.as_bytes()),
                _ => None,
            },
        }
    }

    /// Text, or a Python 2 string that is UTF-8.
    pub fn text<'s>(&'s self, value: Value<'a>) -> Option<&'s str>
    where
        'a: 's,
    {
        std::str::from_utf8(self.bytes(value)?).ok()
    }

    /// An integer.
    pub fn int(&self, value: Value<'a>) -> Option<i64> {
        if let Value::Int(int) = value { Some(int) } else { None }
    }

    /// An integer that counts something.
    pub fn count(&self, value: Value<'a>) -> Option<usize> {
        self.int(value).and_then(|int| usize::try_from(int).ok())
    }

    /// The name of a class or function that the pickle refers to, `module.name`.
    pub fn class(&self, value: Value<'a>) -> Option<&str> {
        if let Node::Class(name) = self.node(value)? { Some(name) } else { None }
    }

    /// An object, with the name of its class or of the function that would have made it.
    pub fn object(&self, value: Value<'a>) -> Option<(&str, &Object<'a>)> {
        if let Node::Object(object) = self.node(value)? { Some((self.class_name(object), object)) } else { None }
    }

    /// The persistent id that stands for an object outside of the pickle.
    pub fn persistent(&self, value: Value<'a>) -> Option<Value<'a>> {
        if let Node::Persistent(id) = self.node(value)? { Some(*id) } else { None }
    }

    /// All persistent ids, in the order of their appearance.
    pub fn persistents(&self) -> impl Iterator<Item = Value<'a>> {
        self.nodes.iter().filter_map(|node| if let Node::Persistent(id) = node { Some(*id) } else { None })
    }

    /// A few words that name the kind of a value, for messages.
    pub fn kind(&self, value: Value<'a>) -> String {
        match value {
            Value::None => "None".into(),
            Value::Bool(_) => "a bool".into(),
            Value::Int(_) | Value::BigInt(_) => "an integer".into(),
            Value::Float(_) => "a float".into(),
            Value::Bytes(_) | Value::Text(_) => "a string".into(),
            Value::Node(_) => match self.node(value) {
                Some(Node::Bytes(_) | Node::Text(_)) => "a string".into(),
                Some(Node::List(items)) => format!("a list of {}", items.len()),
                Some(Node::Tuple(items)) => format!("a tuple of {}", items.len()),
                Some(Node::Dict(pairs)) => format!("a dict of {}", pairs.len()),
                Some(Node::Class(name)) => format!("the class {name}"),
                Some(Node::Object(object)) => format!("an object of {}", self.class_name(object)),
                Some(Node::Persistent(_)) => "a persistent id".into(),
                None => "nothing".into(),
            },
        }
    }

    fn class_name(&self, object: &Object<'a>) -> &str {
        class_name(&self.nodes, object.class)
    }
}

fn node<'n, 'a>(nodes: &'n [Node<'a>], value: Value<'a>) -> Option<&'n Node<'a>> {
    if let Value::Node(index) = value { nodes.get(index as usize) } else { None }
}

fn class_name<'n>(nodes: &'n [Node<'_>], index: u32) -> &'n str {
    match nodes.get(index as usize) {
        Some(Node::Class(name)) => name,
        _ => "?",
    }
}

/// Bytes that Python 3 wrote for protocols without a type for them: `_codecs.encode(text, 'latin1')`.
pub fn latin1_bytes<'s, 'a>(pickle: &'s Pickle<'a>, value: Value<'a>) -> Option<Cow<'s, [u8]>>
where
    'a: 's,
{
    let Some((class, object)) = pickle.object(value) else { return pickle.bytes(value).map(Cow::Borrowed) };
    let &[text, codec] = pickle.sequence(object.args())? else { return None };
    if class != "_codecs.encode" || pickle.text(codec) != Some("latin1") {
        return None;
    }
    pickle.text(text)?.chars().map(|c| u8::try_from(c).ok()).collect::<Option<Vec<_>>>().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Pickle<'_>> {
        Pickle::parse(data, &["collections.OrderedDict", "_codecs.encode"])
    }

    #[test]
    fn text_protocol_speaks_the_same_language() {
        // pickle.dumps({'a': [1, True, 2.5, u'\xe9'], 'b': (3L, None)}, protocol=0) of Python 2.
        let data = b"(dp0\nS'a'\np1\n(lp2\nI1\naI01\naF2.5\naV\\u00e9\np3\nasS'b\\x00\\n'\np4\n(L3L\nNtp5\ns.";
        let pickle = parse(data).unwrap();
        let list = pickle.sequence(pickle.get(pickle.root(), "a").unwrap()).unwrap();
        assert_eq!(list[..3], [Value::Int(1), Value::Bool(true), Value::Float(2.5)]);
        assert_eq!(pickle.text(list[3]), Some("\u{e9}"));
        let tuple = pickle.sequence(pickle.get(pickle.root(), "b\0\n").unwrap()).unwrap();
        assert_eq!(tuple, [Value::Int(3), Value::None]);
        assert_eq!(pickle.consumed(), data.len());
    }

    #[test]
    fn a_call_that_is_not_on_the_list_is_refused_where_it_stands() {
        let error = format!("{:#}", parse(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err());
        assert!(error.contains("byte 2") && error.contains("os.system"), "{error}");
    }

    #[test]
    fn python_2_ordered_dicts_have_their_entries() {
        let data = b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01ee\x85R.";
        let pickle = parse(data).unwrap();
        assert_eq!(pickle.get(pickle.root(), "a"), Some(Value::Int(1)));
    }

    #[test]
    fn negative_and_long_integers() {
        let pickle = parse(b"\x80\x02\x8a\x02\xff\xff.").unwrap();
        assert_eq!(pickle.root(), Value::Int(-1));
        let pickle = parse(b"\x80\x02\x8a\x09\x01\x02\x03\x04\x05\x06\x07\x08\x09.").unwrap();
        assert_eq!(pickle.root(), Value::BigInt(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    }

    #[test]
    fn bytes_through_latin1() {
        let pickle =
            parse(b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00a\xc3\xbfX\x06\x00\x00\x00latin1\x86R.").unwrap();
        assert_eq!(latin1_bytes(&pickle, pickle.root()).unwrap()[..], [b'a', 0xff]);
    }
}
