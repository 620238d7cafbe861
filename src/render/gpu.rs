//! The graphics adapter and its device, for drawing without a window. A window brings its own.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

/// An opened graphics device. All four are handles; cloning them is cheap.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// The entry to the system's graphics drivers.
    pub instance: wgpu::Instance,
    /// The adapter that was chosen.
    pub adapter: wgpu::Adapter,
    /// Its device.
    pub device: wgpu::Device,
    /// The device's queue.
    pub queue: wgpu::Queue,
}

impl Gpu {
    /// Opens the best adapter, software ones included, without any display. `WGPU_BACKEND` (vulkan, gl, metal, dx12)
    /// and `WGPU_ADAPTER_NAME` (part of a name that `adapters` lists) choose another.
    pub fn headless() -> Result<Self> {
        let instance = instance();
        let adapter = match std::env::var("WGPU_ADAPTER_NAME") {
            Ok(wanted) => adapter_named(&instance, &wanted)?,
            Err(_) => pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
                power_preference: wgpu::PowerPreference::HighPerformance,
                ..Default::default()
            }))
            .context(
                "no graphics adapter was found; on Debian or Ubuntu `apt install libvulkan1 mesa-vulkan-drivers` \
                 installs one that needs no graphics card",
            )?,
        };
        Self::open(instance, adapter)
    }

    /// Opens this adapter with all that it offers.
    fn open(instance: wgpu::Instance, adapter: wgpu::Adapter) -> Result<Self> {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("lixelscope"),
            required_limits: adapter.limits(),
            ..Default::default()
        }))
        .with_context(|| format!("opening the graphics adapter {}", describe(&adapter.get_info())))?;
        // wgpu's own handler panics.
        device.on_uncaptured_error(Arc::new(|error| log::error!("graphics: {error}")));
        Ok(Self { instance, adapter, device, queue })
    }

    /// Every adapter that this machine has, described in a line each.
    pub fn adapters() -> Vec<String> {
        let adapters = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
        adapters.iter().map(|adapter| describe(&adapter.get_info())).collect()
    }

    /// "llvmpipe (LLVM 15.0.6) (Vulkan, software, Mesa 22.3.6)".
    pub fn describe(&self) -> String {
        describe(&self.adapter.get_info())
    }
}

/// The device draws on the processor: whatever can be left out should be.
pub fn is_software(device: &wgpu::Device) -> bool {
    device.adapter_info().device_type == wgpu::DeviceType::Cpu
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

fn adapter_named(instance: &wgpu::Instance, wanted: &str) -> Result<wgpu::Adapter> {
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let names: Vec<String> = adapters.iter().map(|adapter| describe(&adapter.get_info())).collect();
    let at = names.iter().position(|name| name.to_lowercase().contains(&wanted.to_lowercase()));
    match at.and_then(|at| adapters.into_iter().nth(at)) {
        Some(adapter) => Ok(adapter),
        None if names.is_empty() => bail!("WGPU_ADAPTER_NAME is {wanted:?}, but no graphics adapter was found"),
        None => bail!("WGPU_ADAPTER_NAME is {wanted:?}, but there is only: {}", names.join("; ")),
    }
}

fn describe(info: &wgpu::AdapterInfo) -> String {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "unknown kind",
    };
    let driver = if info.driver_info.is_empty() { &info.driver } else { &info.driver_info };
    let separator = if driver.is_empty() { "" } else { ", " };
    format!("{} ({:?}, {kind}{separator}{driver})", info.name, info.backend)
}
