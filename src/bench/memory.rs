//! The most memory that this process held. Linux; elsewhere nothing is told.

use std::fs;

/// Forgets what was held so far.
pub(super) fn reset_peak() {
    // Where it may not be written the figure stays that of the whole process.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most that was resident since then, MiB; pages of mapped files count while they are mapped.
pub(super) fn peak_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// In words, to go on with.
pub(super) fn in_words(peak_mib: Option<f64>) -> String {
    peak_mib.map_or(String::new(), |mib| format!(", at most {mib:.0} MiB resident"))
}
