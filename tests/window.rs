//! The real window, under Xvfb: it opens, shows the right pixels, takes clicks and keys, is resized, loses its graphics
//! device, closes. Needs `Xvfb`, `xdotool` and `xwd` (packages xvfb, xdotool, x11-apps) and Mesa's software Vulkan.
//!
//! winit wants the main thread, so this test has its own `main`: it starts itself once more for each window, in a
//! role that an environment variable names.

mod handmade;

fn main() {
    if let Ok(role) = std::env::var("LIXELSCOPE_WINDOW_TEST") {
        child(&role);
    }
}

fn child(role: &str) {
    use handmade::*;
    use lixelscope::app::{WindowOptions, run_with_feed};
    use lixelscope::pipeline::Phase;
    let size = std::env::var("SIZE").unwrap_or("1280x800".into());
    let (w, h) = size.split_once('x').unwrap();
    let options = WindowOptions { size_pt: [w.parse().unwrap(), h.parse().unwrap()], ..Default::default() };
    let role = role.to_owned();
    run_with_feed(options, move |waker| match role.as_str() {
        "loading" => HandmadeFeed::without_result(waker, status(Phase::Loading { what: "I2L-MeshNet (body)".into(), done: 0.42 })),
        "failed" => {
            let mut status = status(Phase::Failed("/home/me/video.mp4: No such file or directory (os error 2)".into()));
            status.notes = vec!["Mask R-CNN is missing: put maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth into /home/me/.local/share/lixelscope/models; https://download.pytorch.org/models/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth has it.".into(), "RootNet is missing: put snapshot_18.pth.tar of the RootNet release there.".into()];
            HandmadeFeed::new(waker, status, |_| result(5, &[], &[]))
        }
        "empty" => { let mut s = status(Phase::Running); s.source = String::new(); HandmadeFeed::without_result(waker, s) }
        _ => HandmadeFeed::new(waker, status(Phase::Running), three_people),
    }).unwrap();
}
