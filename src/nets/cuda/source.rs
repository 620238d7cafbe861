//! The kernels' text. One program for each type of activations; NVRTC compiles it when a device is opened.

use crate::nets::Precision;

/// What every program begins with.
pub const PRELUDE: &str = include_str!("prelude.cu");

/// What is compiled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// The files in their order.
    pub files: &'static [&'static str],
    /// The type of its activations.
    pub precision: Precision,
}

impl Program {
    /// What networks need that are not trained, for activations of a type.
    pub const fn networks(precision: Precision) -> Self {
        let files = &[
            PRELUDE,
            include_str!("pictures.cu"),
            include_str!("layers.cu"),
            include_str!("lixels.cu"),
            include_str!("detector.cu"),
        ];
        Self { files, precision }
    }

    /// The whole text.
    pub fn text(self) -> String {
        let elem = match self.precision {
            Precision::F32 | Precision::Tf32 => 0,
            Precision::F16 => 1,
            Precision::Bf16 => 2,
        };
        format!("#define ELEM {elem}\n{}", self.files.concat())
    }

    /// The signatures of its kernels, read from the text: a launch is held against them, because a wrong argument would
    /// be memory read or written at random.
    pub fn signatures(self) -> Vec<Signature> {
        // KERNEL(threads) name(parameters)
        let text = self.files.concat();
        let after = text.split("KERNEL(").skip(1);
        after
            .filter_map(|rest| {
                let (threads, rest) = rest.split_once(')')?;
                let (name, rest) = rest.split_once('(')?;
                let (parameters, _) = rest.split_once(')')?;
                Some(Signature {
                    name: name.trim().to_owned(),
                    threads: threads.parse().ok()?, // not a number in the macro's definition
                    parameters: parameters.split(',').map(kind).collect(),
                })
            })
            .collect()
    }
}

/// What NVRTC is told, for GPUs of a compute capability: `[9, 0]` for an H200. No contraction of products and sums: the
/// detector decides as the processor does. What may be contracted says so.
pub fn options([major, minor]: [i32; 2]) -> [String; 3] {
    [format!("--gpu-architecture=sm_{major}{minor}"), "--fmad=false".into(), "--std=c++17".into()]
}

/// What a parameter of a kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address on the device.
    Pointer,
    /// `int`
    Int,
    /// `i64`
    Long,
    /// `float`
    Float,
}

/// A kernel's name and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// As in the text.
    pub name: String,
    /// Of a block, at most.
    pub threads: u32,
    /// In their order.
    pub parameters: Vec<Kind>,
}

fn kind(parameter: &str) -> Kind {
    let words = |word: &str| parameter.split_whitespace().any(|w| w == word);
    match () {
        () if parameter.contains('*') => Kind::Pointer,
        () if words("i64") => Kind::Long,
        () if words("float") => Kind::Float,
        () => Kind::Int,
    }
}

/// Nothing that looks like a kernel is overlooked where a program's signatures are read.
#[cfg(test)]
pub(crate) fn assert_nothing_is_overlooked(program: Program) {
    let (all, text) = (program.signatures(), program.files.concat());
    assert_eq!(all.len(), text.lines().filter(|line| line.starts_with("KERNEL(")).count());
    assert_eq!(text.matches("__global__").count(), 1, "only in the macro");
    // Nothing else has come in between that the parser does not know.
    for declared in text.lines().filter(|line| line.starts_with("KERNEL(")) {
        let rest = text.split_once(declared).expect("a line of the text").1;
        let rest = [declared, rest].concat();
        let (_, parameters) = rest.split_once(") ").and_then(|r| r.1.split_once('(')).expect("parameters");
        for parameter in parameters.split_once(')').expect("an end").0.split(',') {
            let known = ["*", "int ", "i64 ", "float "].iter().any(|kind| parameter.contains(kind));
            assert!(known, "{declared}: {parameter}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read_from_the_text() {
        use Kind::{Int, Long, Pointer};
        let networks = Program::networks(Precision::F32);
        let all = networks.signatures();
        let doubled = all.iter().find(|s| s.name == "doubled").expect("a kernel of that name");
        assert_eq!(doubled.parameters, [Pointer, Pointer, Int, Int, Int, Long]);
        assert_eq!(doubled.threads, 256);
        assert_nothing_is_overlooked(networks);
    }
}
