//! The weights that the program brings: small networks of the very same architectures, trained by `lixelscope train` on
//! synthetic people and hands. `assets/weights/README.md` says on what, for how long, and how good they are.

use super::Role;

/// Bytes at an address that suits every element of a tensor.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

/// By stem of the role.
static WEIGHTS: &[(&str, &Aligned<[u8]>)] = include!(concat!(env!("OUT_DIR"), "/weights.rs"));

/// The safetensors file of a role, where the program brings one.
pub(super) fn bytes(role: Role) -> Option<&'static [u8]> {
    let mut found = WEIGHTS.iter().filter(|(stem, _)| *stem == role.stem());
    found.next().map(|(_, bytes)| &bytes.0)
}
