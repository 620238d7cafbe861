//! The window: winit's event loop, and the wiring of pipeline, render and ui. Everything slow is elsewhere; this thread
//! takes events, runs the panels and hands pictures to the graphics device, and sleeps when there is nothing new.

mod graphics;
mod painter;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use winit::application::ApplicationHandler;
use winit::dpi::LogicalSize;
use winit::event::{StartCause, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
use winit::window::{Fullscreen, Window, WindowId};

use crate::capture;
use crate::pipeline::{Command, Live, Status};
use crate::result::FrameResult;
use crate::settings::{Settings, SourceSpec};
use crate::ui::{self, Action, State, View, Webcams};
use graphics::{Graphics, Painted};

/// How the window starts.
#[derive(Clone, Debug)]
pub struct WindowOptions {
    /// Width and height inside the frame, points.
    pub size_pt: [f32; 2],
    /// Folder that saved frames go to.
    pub save_dir: PathBuf,
}

impl Default for WindowOptions {
    /// 1280 x 800, saving to the user's pictures, or where there is no such folder, to the current one.
    fn default() -> Self {
        let pictures = directories::UserDirs::new().and_then(|dirs| dirs.picture_dir().map(std::path::Path::to_owned));
        let save_dir = pictures.filter(|dir| dir.is_dir()).unwrap_or_else(|| PathBuf::from("."));
        Self { size_pt: [1280.0, 800.0], save_dir }
    }
}

/// Where results come from and wishes go to: the pipeline, or a test's stand-in for it.
pub trait Feed {
    /// The newest result, if any.
    fn newest(&self) -> Option<Arc<FrameResult>>;
    /// The state now.
    fn status(&self) -> Status;
    /// Asks for something. Returns at once.
    fn send(&self, command: Command);
}

impl Feed for Live {
    fn newest(&self) -> Option<Arc<FrameResult>> {
        Live::newest(self)
    }

    fn status(&self) -> Status {
        Live::status(self)
    }

    fn send(&self, command: Command) {
        Live::send(self, command);
    }
}

/// Wakes the window from any thread: there is something new to show.
#[derive(Clone)]
pub struct Waker(EventLoopProxy<Event>);

impl Waker {
    /// The window shows what is new, as soon as it can. Cheap.
    pub fn wake(&self) {
        // An error means that the window is gone: nobody waits.
        let _ = self.0.send_event(Event::New);
    }
}

/// What other threads tell the window.
enum Event {
    /// There is something new to show.
    New,
    /// The cameras of this machine were listed.
    Webcams(Webcams),
    /// A frame was written, or why not.
    Saved(Result<PathBuf>),
}

/// Opens the window and stays until it is closed. Must be called on the main thread.
pub fn run(settings: Settings, source: Option<SourceSpec>, options: WindowOptions) -> Result<()> {
    open(options, true, |waker| Live::start(settings, source, move || waker.wake()))
}

/// As [`run`], with results from anywhere, and no heatmaps until someone asks for them.
pub fn run_with_feed<F: Feed>(options: WindowOptions, start: impl FnOnce(Waker) -> F) -> Result<()> {
    open(options, false, start)
}

fn open<F: Feed>(options: WindowOptions, greets: bool, start: impl FnOnce(Waker) -> F) -> Result<()> {
    let event_loop = EventLoop::with_user_event()
        .build()
        .context("no window can be opened here: is there a display? (`lixelscope run` works without one)")?;
    let proxy = event_loop.create_proxy();
    let feed = start(Waker(proxy.clone()));
    let state = State::new(feed.status().settings);
    let ctx = egui::Context::default();
    ui::theme::install(&ctx);
    let mut app = App {
        feed,
        with_truth: WithTruth::default(),
        options,
        proxy,
        ctx,
        state,
        webcams: Webcams::default(),
        window: None,
        repaint_at: None,
        title: String::new(),
        greets,
        rates: Rates::default(),
        failed: None,
    };
    event_loop.run_app(&mut app).context("the window's event loop")?;
    app.failed.map_or(Ok(()), Err)
}

struct App<F> {
    feed: F,
    with_truth: WithTruth,
    options: WindowOptions,
    proxy: EventLoopProxy<Event>,
    ctx: egui::Context,
    state: State,
    webcams: Webcams,
    window: Option<OpenWindow>,
    /// When to paint again though nothing new came: an animation, a second try.
    repaint_at: Option<Instant>,
    title: String,
    /// Heatmaps are to be shown with the first people.
    greets: bool,
    rates: Rates,
    failed: Option<anyhow::Error>,
}

/// How often the window is painted and what that takes, for the log.
#[derive(Default)]
struct Rates {
    since: Option<Instant>,
    pictures: u32,
    busy: Duration,
}

impl Rates {
    fn note(&mut self, busy: Duration) {
        const EVERY: Duration = Duration::from_secs(2);
        let since = *self.since.get_or_insert_with(Instant::now);
        self.pictures += 1;
        self.busy += busy;
        if since.elapsed() >= EVERY {
            let per_sec = f64::from(self.pictures) / since.elapsed().as_secs_f64();
            let ms = self.busy.as_secs_f64() * 1e3 / f64::from(self.pictures);
            log::debug!("{per_sec:.1} pictures a second, {ms:.1} ms each");
            *self = Self::default();
        }
    }
}

/// The newest result with the true people of its frame, made once for each result.
#[derive(Default)]
struct WithTruth(Option<[Arc<FrameResult>; 2]>);

impl WithTruth {
    /// What is shown of a result: the true people too where they are wanted, or where no network shows any.
    fn of(&mut self, result: Arc<FrameResult>, wanted: bool) -> Arc<FrameResult> {
        if !wanted && !result.is_bare() {
            return result;
        }
        if let Some([_, both]) = self.0.as_ref().filter(|[held, _]| Arc::ptr_eq(held, &result)) {
            return Arc::clone(both);
        }
        let Some(both) = result.with_truth().map(Arc::new) else { return result };
        self.0 = Some([result, Arc::clone(&both)]);
        both
    }
}

/// The window and what paints it.
struct OpenWindow {
    window: Arc<Window>,
    input: egui_winit::State,
    /// `None` after the device was lost, until there is a new one.
    graphics: Option<Graphics>,
    occluded: bool,
}

impl OpenWindow {
    fn open(event_loop: &ActiveEventLoop, ctx: &egui::Context, options: &WindowOptions) -> Result<Self> {
        let [width, height] = options.size_pt;
        let attributes = Window::default_attributes()
            .with_title("Lixelscope")
            .with_inner_size(LogicalSize::new(width, height))
            .with_min_inner_size(LogicalSize::new(640.0, 400.0));
        let window = Arc::new(event_loop.create_window(attributes).context("opening a window")?);
        let graphics = Graphics::new(event_loop, &window, ctx)?;
        let input = egui_winit::State::new(
            ctx.clone(),
            egui::ViewportId::ROOT,
            event_loop,
            Some(window.scale_factor() as f32),
            None,
            Some(graphics.max_texture_side()),
        );
        Ok(Self { window, input, graphics: Some(graphics), occluded: false })
    }

    /// Minimised and hidden windows are not painted.
    fn is_visible(&self) -> bool {
        let size = self.window.inner_size();
        !self.occluded && size.width > 0 && size.height > 0
    }
}

impl<F: Feed> ApplicationHandler<Event> for App<F> {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.window.is_some() {
            return;
        }
        match OpenWindow::open(event_loop, &self.ctx, &self.options) {
            Ok(open) => {
                open.window.request_redraw();
                self.window = Some(open);
            }
            Err(error) => {
                self.failed = Some(error);
                event_loop.exit();
            }
        }
    }

    fn suspended(&mut self, _event_loop: &ActiveEventLoop) {
        self.window = None;
    }

    fn new_events(&mut self, _event_loop: &ActiveEventLoop, cause: StartCause) {
        if matches!(cause, StartCause::ResumeTimeReached { .. }) {
            self.repaint_at = None;
            self.request_redraw();
        }
    }

    fn user_event(&mut self, _event_loop: &ActiveEventLoop, event: Event) {
        match event {
            Event::New => {}
            Event::Webcams(webcams) => self.webcams = webcams,
            Event::Saved(Ok(path)) => self.state.say(
                &self.ctx,
                format!("Saved {}", std::path::absolute(&path).unwrap_or(path).display()),
                false,
            ),
            Event::Saved(Err(error)) => self.state.say(&self.ctx, format!("Not saved: {error:#}"), true),
        }
        self.request_redraw();
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, _id: WindowId, event: WindowEvent) {
        let Some(open) = &mut self.window else { return };
        match &event {
            WindowEvent::CloseRequested | WindowEvent::Destroyed => return event_loop.exit(),
            WindowEvent::RedrawRequested => return self.paint(event_loop),
            WindowEvent::Occluded(occluded) => open.occluded = *occluded,
            _ => {}
        }
        let resized = matches!(event, WindowEvent::Resized(_) | WindowEvent::Occluded(_));
        let response = open.input.on_window_event(&open.window, &event);
        if response.repaint || resized {
            self.request_redraw();
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        event_loop.set_control_flow(self.repaint_at.map_or(ControlFlow::Wait, ControlFlow::WaitUntil));
    }
}

impl<F: Feed> App<F> {
    fn request_redraw(&self) {
        if let Some(open) = self.window.as_ref().filter(|open| open.is_visible()) {
            open.window.request_redraw();
        }
    }

    fn repaint_after(&mut self, delay: Duration) {
        // egui says "never" with a very long time.
        let at = Instant::now().checked_add(delay).filter(|_| delay < Duration::from_hours(1));
        self.repaint_at = at.into_iter().chain(self.repaint_at).min();
    }

    /// Runs the panels and paints the window.
    fn paint(&mut self, event_loop: &ActiveEventLoop) {
        const SECOND_TRY: Duration = Duration::from_secs(1);
        let Some(open) = self.window.as_mut().filter(|open| open.is_visible()) else { return };
        if open.graphics.as_ref().is_none_or(Graphics::is_lost) {
            log::warn!("the graphics device was lost; opening another");
            // The old one goes first: a window has one surface.
            open.graphics = None;
            match Graphics::new(event_loop, &open.window, &self.ctx) {
                Ok(graphics) => open.graphics = Some(graphics),
                Err(error) => {
                    log::error!("no graphics device: {error:#}; trying again");
                    return self.repaint_after(SECOND_TRY);
                }
            }
        }
        let Some(graphics) = &mut open.graphics else { return };

        let started = Instant::now();
        let result = self.feed.newest().map(|result| self.with_truth.of(result, self.state.truth));
        let status = self.feed.status();
        if self.title != status.source {
            self.title.clone_from(&status.source);
            let title = if status.source.is_empty() { String::new() } else { format!("{} - ", status.source) };
            open.window.set_title(&format!("{title}Lixelscope"));
        }
        let view = View {
            result: result.as_deref(),
            status: &status,
            webcams: &self.webcams,
            frame_texture: graphics.frame_texture(),
            orbit_texture: graphics.orbit_texture(),
        };
        let input = open.input.take_egui_input(&open.window);
        let mut shown = ui::Output::default();
        let mut actions = Vec::new();
        let state = &mut self.state;
        let mut output = self.ctx.run_ui(input, |ui| {
            // egui may run a second pass to settle a layout; what the first was asked for counts all the same.
            shown = ui::show(ui, &view, state);
            actions.append(&mut shown.actions);
        });
        if self.greets
            && let Some(result) = &result
        {
            self.greets = !state.greet(result, &mut actions);
        }
        open.input.handle_platform_output(&open.window, output.platform_output);

        let per_pt = output.pixels_per_point;
        let primitives = self.ctx.tessellate(output.shapes, per_pt);
        graphics.update_textures(&mut output.textures_delta);
        graphics.draw_views(result.as_ref(), &self.state.draw, &self.state.orbit, &shown);
        let painted = graphics.paint(&open.window, &primitives, per_pt);
        graphics.free_textures(&mut output.textures_delta);
        self.rates.note(started.elapsed());

        if let Some(root) = output.viewport_output.get(&egui::ViewportId::ROOT) {
            self.repaint_after(root.repaint_delay);
        }
        if let Painted::Again(delay) = painted {
            self.repaint_after(delay);
        }
        for action in actions {
            self.act(event_loop, action, result.as_ref());
        }
    }

    fn act(&mut self, event_loop: &ActiveEventLoop, action: Action, result: Option<&Arc<FrameResult>>) {
        let Some(open) = &mut self.window else { return };
        match action {
            Action::Send(command) => self.feed.send(command),
            Action::LookForWebcams => {
                self.webcams = Webcams::Looking;
                self.in_background("list-webcams", || Event::Webcams(list_webcams()));
            }
            Action::SaveFrame => {
                if let (Some(result), Some(graphics)) = (result, &open.graphics) {
                    let save = graphics.save_frame(Arc::clone(result), self.state.draw.clone(), &self.options.save_dir);
                    self.in_background("save-frame", || Event::Saved(save()));
                }
            }
            Action::RebuildGraphics => {
                if let Some(graphics) = &open.graphics {
                    graphics.give_up();
                }
                open.window.request_redraw();
            }
            Action::ToggleFullscreen => {
                let now = open.window.fullscreen();
                open.window.set_fullscreen(now.is_none().then_some(Fullscreen::Borderless(None)));
            }
            Action::Quit => event_loop.exit(),
        }
    }

    /// Runs something slow on a thread of its own and takes its event.
    fn in_background(&mut self, name: &str, work: impl FnOnce() -> Event + Send + 'static) {
        let proxy = self.proxy.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let _ = proxy.send_event(work()); // an error means that the window is gone
        });
        if let Err(error) = thread {
            self.state.say(&self.ctx, format!("No thread for {name}: {error}"), true);
        }
    }
}

fn list_webcams() -> Webcams {
    match capture::list_cameras() {
        Ok(cameras) => Webcams::Found(cameras.into_iter().map(|camera| (camera.index, camera.name)).collect()),
        Err(error) => Webcams::Failed(format!("{error:#}")),
    }
}
