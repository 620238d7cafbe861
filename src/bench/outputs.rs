//! What networks gave, in files: for programs that compute the same (`tests/peers`).

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor, safetensors};

use super::networks::Outputs;

/// Writes `FOLDER/NETWORK.safetensors`, f32; nothing for networks that nobody compares.
pub(super) fn write(folder: &Path, network: &str, outputs: Outputs) -> Result<()> {
    let path = folder.join(network).with_extension("safetensors");
    let host = |(name, tensor): (&str, Tensor)| {
        Ok((name.to_owned(), tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?))
    };
    let tensors: HashMap<String, Tensor> = outputs()?.into_iter().map(host).collect::<Result<_>>()?;
    if tensors.is_empty() {
        return Ok(());
    }
    safetensors::save(&tensors, &path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let gamma = Tensor::new(&[1.5_f32, -2.0], &Device::Cpu).unwrap();
        write(folder.path(), "rootnet", Box::new(move || Ok(vec![("gamma", gamma)]))).unwrap();
        let read = safetensors::load(folder.path().join("rootnet.safetensors"), &Device::Cpu).unwrap();
        assert_eq!(read["gamma"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
        write(folder.path(), "other", Box::new(|| Ok(Vec::new()))).unwrap();
        assert!(!folder.path().join("other.safetensors").exists());
        let missing = write(
            &folder.path().join("none"),
            "rootnet",
            Box::new(|| Ok(vec![("gamma", Tensor::zeros(1, DType::F32, &Device::Cpu)?)])),
        );
        assert!(missing.unwrap_err().to_string().contains("rootnet.safetensors"));
    }
}
