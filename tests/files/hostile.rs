//! Files that are cut, bent or made to do harm: an answer or an error, never a panic, and never more memory than the
//! file's size and a fixed allowance.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use lixelscope::body::{BodyModel, SnapshotBody};
use lixelscope::nets::weights::WeightFile;
use lixelscope::pickle::Pickle;
use zip::CompressionMethod;

use super::{golden, make};

/// Counts what each thread holds. Files are read on the thread that asks for them.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // `try_with`: memory is also freed while a thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new exist side by side while it moves.
        count(size as isize);
        count(-(layout.size() as isize));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ALLOWANCE: usize = 64 << 20;

/// Runs `read`, and fails when it took more memory at once than the file's size and the allowance.
fn within_memory<T>(file_bytes: usize, what: &str, read: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let result = read();
    let taken = PEAK.get() - before;
    assert!(taken <= (ALLOWANCE + file_bytes) as isize, "{what}: {taken} bytes for a file of {file_bytes}");
    result
}

/// Opens a checkpoint and reads all that it holds.
fn read_checkpoint(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, content)?;
    within_memory(content.len(), "checkpoint", || {
        let file = WeightFile::open(path)?;
        for name in file.names() {
            file.data(name)?;
            // An element type that candle lacks is an error like any other.
            let _ = file.tensor(name, &candle_core::Device::Cpu);
        }
        let _ = SnapshotBody::read(&file);
        Ok(())
    })
}

fn read_body(content: &[u8]) -> anyhow::Result<()> {
    within_memory(content.len(), "body model", || BodyModel::from_bytes(content).map(drop))
}

/// The generator of the golden files' weights, as a stream of random numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Places near words and at both ends: the structure of a file, without its many numbers.
fn structure(content: &[u8]) -> Vec<usize> {
    let word = |w: &[u8]| w.iter().all(|b| b.is_ascii_lowercase() || *b == b'_' || *b == b'\'');
    let near = |at: usize| at.saturating_sub(20)..(at + 24).min(content.len());
    let mut places: Vec<usize> =
        (0..content.len().min(100)).chain(content.len().saturating_sub(100)..content.len()).collect();
    places.extend(content.windows(4).enumerate().filter(|(_, w)| word(w)).flat_map(|(at, _)| near(at)));
    places.sort_unstable();
    places.dedup();
    places
}

/// One of many ways to break a file.
fn broken(content: &[u8], places: &[usize], random: &mut Random) -> Vec<u8> {
    let mut bytes = content.to_vec();
    let place = |random: &mut Random| {
        if random.below(8) == 0 { random.below(content.len()) } else { places[random.below(places.len())] }
    };
    for _ in 0..=random.below(3) {
        let at = place(random).min(bytes.len().saturating_sub(1));
        match random.below(6) {
            0 => bytes.truncate(at),
            1 | 2 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            3 if !bytes.is_empty() => bytes[at] = random.next() as u8,
            // A number, or a length, of another size.
            4 => {
                let number = [0, 1, 0x7fff_ffff, u64::MAX, u64::MAX >> 1, 1 << 40, random.next()][random.below(7)];
                let width = [1, 2, 4, 8][random.below(4)];
                for (byte, new) in bytes.iter_mut().skip(at).take(width).zip(number.to_le_bytes()) {
                    *byte = new;
                }
            }
            // A piece of the file in another place.
            _ => {
                let from = place(random).min(bytes.len());
                let piece = bytes[from..(from + random.below(64)).min(bytes.len())].to_vec();
                let end = (at + random.below(64)).min(bytes.len());
                bytes.splice(at.min(end)..end, piece);
            }
        }
    }
    bytes
}

#[test]
fn broken_checkpoints_are_errors_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken");
    for name in ["checkpoint_zip.pth.tar", "checkpoint_legacy.pth.tar", "checkpoint_expected.safetensors"] {
        let content = std::fs::read(golden(name)).unwrap();
        let places = structure(&content);
        let mut random = Random(1);
        let mut errors = 0;
        for _ in 0..800 {
            errors += usize::from(read_checkpoint(&path, &broken(&content, &places, &mut random)).is_err());
        }
        println!("{name}: {errors} of 800 are errors");
        assert!(errors > 200, "{name}: the mutations hardly hit anything");
        for i in 0..200 {
            let end = content.len() * i / 200;
            assert!(read_checkpoint(&path, &content[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn broken_body_models_are_errors_and_no_more() {
    for name in
        ["smpl_layout_chumpy_py2.pkl", "smpl_layout_plain_py3.pkl", "mano_layout_chumpy_py2.pkl", "smpl_layout.npz"]
    {
        let content = std::fs::read(golden(name)).unwrap();
        let places = structure(&content);
        let mut random = Random(2);
        let mut errors = 0;
        for _ in 0..100 {
            errors += usize::from(read_body(&broken(&content, &places, &mut random)).is_err());
        }
        println!("{name}: {errors} of 100 are errors");
        assert!(errors > 25, "{name}: the mutations hardly hit anything");
        for i in 0..60 {
            let end = content.len() * i / 60;
            assert!(read_body(&content[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

/// The error of each reader of pickles for the same hostile one.
fn errors_of(pickle: &[u8]) -> [String; 3] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    let entries: [(&str, &[u8]); 1] = [("a/data.pkl", pickle)];
    let zip = read_checkpoint(&path, &make::archive(&entries, CompressionMethod::Stored));
    let legacy = read_checkpoint(&path, &make::legacy_of(pickle, b"\x80\x02]."));
    [zip, legacy, read_body(pickle)].map(|result| format!("{:#}", result.unwrap_err()))
}

#[test]
fn nothing_in_a_pickle_is_run() {
    let witness = std::env::temp_dir().join(format!("lixelscope-witness-{}", std::process::id()));
    let command = format!("touch {}", witness.display());
    for (module, function) in
        [("os", "system"), ("posix", "system"), ("__builtin__", "eval"), ("builtins", "exec"), ("subprocess", "Popen")]
    {
        let head = format!("c{module}\n{function}\n(S'{command}'\ntR.");
        let stack =
            format!("\u{8c}{}{module}\u{8c}{}{function}", module.len() as u8 as char, function.len() as u8 as char);
        let stack: Vec<u8> = stack.chars().map(|c| c as u8).collect();
        let stack = [b"\x80\x04", &stack[..], b"\x93)R."].concat();
        for pickle in [head.into_bytes(), stack] {
            for error in errors_of(&pickle) {
                assert!(error.contains(function) && error.contains("byte"), "{error}");
            }
        }
    }
    // Old-style instances, persistent ids and extension codes are no way around.
    for pickle in [&b"(ios\nsystem\n."[..], b"(cos\nsystem\nS'ls'\no.", b"\x80\x02\x82\x01.", b"\x80\x05\x97."] {
        errors_of(pickle);
    }
    assert!(!witness.exists());
}

#[test]
fn pickles_that_unfold_or_nest_without_end() {
    // Each list holds the one before it twice: 2^10000 leaves for whoever unfolds it.
    let mut doubling = b"\x80\x02]".to_vec();
    doubling.extend(b"q\x00](h\x00h\x00e".repeat(10_000));
    doubling.push(b'.');
    // Lists and tuples in each other, half a million deep.
    let deep_lists = [&b"\x80\x02"[..], &b"]".repeat(400_000), &b"a".repeat(399_999), b"."].concat();
    let deep_tuples = [&b"\x80\x02)"[..], &b"\x85".repeat(500_000), b"."].concat();
    let marks = [&b"\x80\x02"[..], &b"(".repeat(900_000), b"."].concat();
    // A dict that contains itself, under the names of the wrappers.
    let ring = b"\x80\x02}q\x00X\x07\0\0\0networkh\x00sX\x05\0\0\0modelh\x00s.";
    // One list of pairs, shared by thousands of dicts that would each copy it.
    let mut copies = b"\x80\x02ccollections\nOrderedDict\nq\x000](".to_vec();
    copies.extend(b"K\x01K\x02\x86".repeat(10_000));
    copies.extend(b"e\x85q\x01");
    copies.extend(b"h\x00h\x01R".repeat(100_000));
    copies.push(b'.');
    for pickle in [&doubling[..], &deep_lists, &deep_tuples, &marks, ring, &copies] {
        errors_of(pickle);
        // As a pickle some of them are fine: small in memory, and quick to drop.
        within_memory(pickle.len(), "pickle", || drop(Pickle::parse(pickle, &["collections.OrderedDict"])));
    }
}

#[test]
fn lengths_are_checked_before_memory_is_taken() {
    for head in [&b"\x8e"[..], b"\x8d", b"\x95", b"\x96"] {
        for length in [u64::MAX, 1 << 62, 1 << 40, 1000] {
            let pickle = [b"\x80\x05", head, &length.to_le_bytes(), b"abc."].concat();
            errors_of(&pickle);
        }
    }
    for head in [&b"X"[..], b"T", b"B", b"\x8b"] {
        errors_of(&[b"\x80\x02", head, &u32::MAX.to_le_bytes(), b"abc."].concat());
    }
}

#[test]
fn tensors_that_leave_their_storage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    let ok = || make::Tensor { class: "Float", shape: vec![2, 3], strides: vec![3, 1], offset: 0, storage: 6 };
    let storage = [0; 24];
    read_checkpoint(&path, &make::zip(&ok(), &storage)).unwrap();
    read_checkpoint(&path, &make::legacy(&ok(), 6, &storage)).unwrap();
    let bad = [
        make::Tensor { shape: vec![2, 4], ..ok() },
        make::Tensor { shape: vec![-2, 3], ..ok() },
        make::Tensor { shape: vec![i64::MAX, 3], ..ok() },
        make::Tensor { shape: vec![1 << 32, 1 << 32], ..ok() },
        make::Tensor { shape: vec![0, 3], offset: 7, ..ok() },
        make::Tensor { shape: vec![2], ..ok() },
        make::Tensor { strides: vec![4, 1], ..ok() },
        make::Tensor { strides: vec![-3, 1], ..ok() },
        make::Tensor { strides: vec![i64::MAX, i64::MAX], ..ok() },
        // One element, seen a billion times.
        make::Tensor { shape: vec![1 << 30], strides: vec![0], ..ok() },
        make::Tensor { offset: 1, ..ok() },
        make::Tensor { offset: i64::MAX, ..ok() },
        make::Tensor { offset: -1, ..ok() },
        make::Tensor { storage: 7, ..ok() },
        make::Tensor { storage: i64::MAX, ..ok() },
        make::Tensor { storage: -6, ..ok() },
        make::Tensor { class: "Double", ..ok() },
        make::Tensor { class: "Quantum", ..ok() },
    ];
    for (i, tensor) in bad.iter().enumerate() {
        assert!(read_checkpoint(&path, &make::zip(tensor, &storage)).is_err(), "zip {i}");
        assert!(read_checkpoint(&path, &make::legacy(tensor, 6, &storage)).is_err(), "legacy {i}");
    }
    for announced in [7, -1, i64::MIN, i64::MAX, 1 << 61] {
        assert!(read_checkpoint(&path, &make::legacy(&ok(), announced, &storage)).is_err(), "{announced} elements");
    }
}

#[test]
fn archives_that_lie_about_their_entries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    let tensor = make::Tensor { class: "Float", shape: vec![6], strides: vec![1], offset: 0, storage: 6 };
    let honest = make::zip(&tensor, &[0; 24]);
    let at = |magic: &[u8]| (0..honest.len()).filter(|&at| honest[at..].starts_with(magic)).collect::<Vec<_>>();
    // In the directory: the sizes (20, 24) and the place (42) of an entry; at the end: entries (8, 10), size and place.
    for (magic, fields) in [(b"PK\x01\x02", &[20, 24, 42][..]), (b"PK\x05\x06", &[8, 10, 12, 16])] {
        for record in at(magic) {
            for field in fields {
                for lie in [0xffff_fff0_u32, 0x7fff_ffff, 1 << 20] {
                    let mut bytes = honest.clone();
                    bytes[record + field..][..4].copy_from_slice(&lie.to_le_bytes());
                    let result = read_checkpoint(&path, &bytes);
                    // The directory's size can be found without being told.
                    assert!(result.is_err() || *field == 12, "{lie:#x} at {record}+{field}");
                }
            }
        }
    }
    let entries: [(&str, &[u8]); 1] = [("a/data.pkl", b"\x80\x02}.")];
    let compressed = make::archive(&entries, CompressionMethod::Deflated);
    let error = format!("{:#}", read_checkpoint(&path, &compressed).unwrap_err());
    assert!(error.contains("compress"), "{error}");
}

#[test]
fn arrays_that_unpack_to_more_than_a_body() {
    // 200 MB of zeros in 200 kB, under honest and under lying headers.
    let zeros = vec![0; 200 << 20];
    for shape in [&[25 << 20][..], &[5_000_000, 5], &[usize::MAX, 2], &[8, 3], &[1 << 13, 1 << 10, 3]] {
        let bomb = make::npy("<f8", shape, &zeros);
        let entries: [(&str, &[u8]); 1] = [("v_template.npy", &bomb)];
        let npz = make::archive(&entries, CompressionMethod::Deflated);
        drop(bomb);
        assert!(npz.len() < 1 << 20);
        assert!(read_body(&npz).is_err());
    }
    // A header that says it is a gigabyte long.
    let entries: [(&str, &[u8]); 1] = [("f.npy", b"\x93NUMPY\x02\0\0\0\0\x40{'descr': '<f8'")];
    assert!(read_body(&make::archive(&entries, CompressionMethod::Stored)).is_err());
}

#[test]
fn safetensors_headers_that_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile");
    let file = |length: u64, header: &str, data: &[u8]| [&length.to_le_bytes()[..], header.as_bytes(), data].concat();
    let of = |shape: &str, offsets: &str| {
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#);
        file(header.len() as u64, &header, &[0; 24])
    };
    read_checkpoint(&path, &of("[2,3]", "[0,24]")).unwrap();
    for (shape, offsets) in [
        ("[2,4]", "[0,24]"),
        ("[2,4]", "[0,32]"),
        ("[2,3]", "[24,0]"),
        ("[4611686018427387904,4]", "[0,24]"),
        ("[18446744073709551615,18446744073709551615]", "[0,24]"),
        ("[2305843009213693952]", "[0,9223372036854775808]"),
        ("[-2,3]", "[0,24]"),
    ] {
        assert!(read_checkpoint(&path, &of(shape, offsets)).is_err(), "{shape} {offsets}");
    }
    for length in [u64::MAX, 1 << 40, 3, 90] {
        assert!(read_checkpoint(&path, &file(length, r#"{"w":{}}"#, &[])).is_err(), "header of {length}");
    }
    let nest = "[".repeat(1 << 20);
    assert!(read_checkpoint(&path, &file(nest.len() as u64 + 5, &format!("{{\"w\":{nest}"), &[])).is_err());
    for content in [&b""[..], b"PK", b"PK\x03\x04", b"<html>", b"{}", b"\x80\x02}.", &[0; 100]] {
        assert!(read_checkpoint(&path, content).is_err());
    }
    assert!(WeightFile::open(folder.path()).is_err());
    assert!(WeightFile::open(folder.path().join("absent")).is_err());
}
