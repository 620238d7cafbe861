//! `lixelscope convert`: any checkpoint becomes safetensors, which are mapped instead of parsed at start.

use anyhow::Result;

use crate::cli::ConvertArgs;
use crate::nets::weights;

/// Runs the command.
pub fn run(args: &ConvertArgs) -> Result<()> {
    let count = weights::convert(&args.input, &args.output)?;
    log::info!("{count} tensors written to {}", args.output.display());
    Ok(())
}
