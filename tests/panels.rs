//! The panels, without a window, a GPU or a clock: what they show of a result, and what they ask for.

mod handmade;

use std::path::Path;

use egui::accesskit::Role;
use egui::{Event, Key, Modifiers, PointerButton, Pos2, TextureId, Vec2, pos2, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::{AccessKitNode, NodeT as _, Queryable as _, by};
use glam::Vec3;
use handmade::{FRAME_SIZE, result, status, three_people};
use lixelscope::models::{self, Origin, Weights};
use lixelscope::pipeline::{Command, Phase, Status};
use lixelscope::render::MeshColour;
use lixelscope::result::{EstimatorKind, FrameResult, Landmark, MeshSource};
use lixelscope::settings::{BoxSource, CameraSetting, SourceSpec};
use lixelscope::synth::Kind;
use lixelscope::ui::{self, Action, Output, State, View, Webcams};

/// What the panels read, and what they answered.
struct Bench {
    result: Option<FrameResult>,
    status: Status,
    webcams: Webcams,
    state: State,
    actions: Vec<Action>,
    output: Output,
}

impl Bench {
    fn new(result: Option<FrameResult>, status: Status) -> Self {
        let state = State::new(status.settings.clone());
        let (actions, output) = (Vec::new(), Output::default());
        Self { result, status, webcams: Webcams::Unknown, state, actions, output }
    }

    /// The commands since the last call.
    fn commands(&mut self) -> Vec<Command> {
        let actions = std::mem::take(&mut self.actions);
        actions
            .into_iter()
            .filter_map(|action| if let Action::Send(command) = action { Some(command) } else { None })
            .collect()
    }
}

type Window = Harness<'static, Bench>;

fn window_of(bench: Bench, size: [f32; 2], pixels_per_point: f32) -> Window {
    let show = |ui: &mut egui::Ui, bench: &mut Bench| {
        let view = View {
            result: bench.result.as_ref(),
            status: &bench.status,
            webcams: &bench.webcams,
            frame_texture: TextureId::default(),
            orbit_texture: TextureId::default(),
        };
        let mut output = ui::show(ui, &view, &mut bench.state);
        bench.actions.append(&mut output.actions);
        bench.output = output;
    };
    let builder = Harness::builder().with_size(size).with_pixels_per_point(pixels_per_point);
    let mut window = builder.with_context_setup(ui::theme::install).build_ui_state(show, bench);
    window.run();
    window
}

fn window(bench: Bench) -> Window {
    window_of(bench, [1280.0, 800.0], 1.0)
}

fn with_people() -> Bench {
    Bench::new(Some(three_people(&[])), status(Phase::Running))
}

fn click_at(window: &mut Window, at: Pos2) {
    window.hover_at(at);
    window.run();
    window.drag_at(at);
    window.event(Event::PointerButton {
        pos: at,
        button: PointerButton::Primary,
        pressed: false,
        modifiers: Modifiers::NONE,
    });
    window.run();
}

fn drag(window: &mut Window, from: Pos2, to: Pos2, button: PointerButton, modifiers: Modifiers) {
    let press = |pos, pressed| Event::PointerButton { pos, button, pressed, modifiers };
    window.hover_at(from);
    window.run();
    window.event_modifiers(press(from, true), modifiers);
    window.run();
    for step in 1..=4 {
        window.event_modifiers(Event::PointerMoved(from + (to - from) * (step as f32 / 4.0)), modifiers);
        window.run();
    }
    window.event_modifiers(press(to, false), modifiers);
    window.run();
}

/// Where a frame pixel is shown.
fn on_frame(window: &Window, px: glam::Vec2) -> Pos2 {
    let rect = window.get_by_label("frame view").rect();
    let scale = rect.width() / FRAME_SIZE[0] as f32;
    rect.min + vec2((px.x + 0.5) * scale, (px.y + 0.5) * scale)
}

/// Where a point of the first person is shown.
fn on_first_person(window: &Window, from_root_m: Vec3) -> Pos2 {
    let result = window.state().result.as_ref().unwrap();
    let p = result.people[0].root_camera_m + from_root_m;
    on_frame(window, result.intrinsics.frame_from_camera(p))
}

// ------------------------------------------------------------------------------------------------ empty states

#[test]
fn without_a_source_the_window_says_what_to_do() {
    let mut status = status(Phase::Ended("no source is open".into()));
    status.source.clear();
    let window = window(Bench::new(None, status));
    window.get_by_label("Nothing to look at yet");
    window.get_by_label_contains("or drop a file here");
    window.get_by_label("No source");
}

#[test]
fn loading_shows_what_and_how_far() {
    let phase = Phase::Loading { what: "I2L-MeshNet (body)".into(), done: 0.42 };
    let window = window(Bench::new(None, status(phase)));
    window.get_by_label("Waiting for the first frame");
    window.get_by_label("Loading I2L-MeshNet (body)");
    window.get_by_label(" 42%");
    let bars: Vec<_> = window.get_all_by_role(Role::ProgressIndicator).collect();
    assert_eq!(bars.len(), 2, "one in the view, one in the status line");
}

#[test]
fn a_failed_source_is_said_and_can_be_opened_again() {
    let mut status = status(Phase::Failed("cannot open video.mp4".into()));
    status.source.clear();
    let mut window = window(Bench::new(None, status));
    window.get_by_label("The source failed");
    assert!(window.query_all_by_label("cannot open video.mp4").count() >= 1);
    window.get_by_label("restart").click();
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Restart]);
    // Space goes on, which here means the same.
    window.key_press(Key::Space);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Restart]);
}

#[test]
fn nobody_and_nothing_chosen_are_said() {
    let nobody = window(Bench::new(Some(result(3, &[], &[])), status(Phase::Running)));
    nobody.get_by_label("No people in this frame");
    assert!(nobody.query_by_label("Click a mesh to see its heatmaps").is_none());
    window(with_people()).get_by_label("Click a mesh to see its heatmaps");
}

#[test]
fn notes_are_shown_can_be_unfolded_and_put_away() {
    let mut bench = with_people();
    bench.status.notes = vec!["RootNet is missing".into(), "the mask head is missing".into()];
    let mut window = window(bench);
    window.get_by_label("RootNet is missing");
    assert!(window.query_by_label("the mask head is missing").is_none());
    window.get_by_label("1 more").click();
    window.run();
    window.get_by_label("the mask head is missing");
    window.get_by_label("Hide").click();
    window.run();
    assert!(window.query_by_label("RootNet is missing").is_none());
    window.state_mut().status.notes.push("the camera stalls".into());
    window.run();
    window.get_by_label("the camera stalls"); // what is new is not hidden
    window.get_by_label("2 notes").click();
    window.run();
    window.get_by_label("RootNet is missing");
}

// ------------------------------------------------------------------------------------------------ people

#[test]
fn people_are_listed_chosen_and_switched_off() {
    let mut window = window(with_people());
    window.get_by_label("person 1, 86%, 2.60 m");
    window.get_by_label("person 3, 58%, 4.10 m");
    window.get_by_label("person 2, 72%, 3.40 m").click();
    window.run();
    assert_eq!(window.state().state.person, Some(2));
    window.get_by_label("#2");

    window.get_by_label("draw person 1").click();
    window.run();
    assert!(window.state().state.draw.hidden.contains(&1));
    assert_eq!(window.state().state.person, Some(2), "the switch is not the row");
    // Who is not drawn cannot be picked.
    let head = on_first_person(&window, Vec3::new(0.0, -0.72, 0.0));
    click_at(&mut window, head);
    assert_eq!(window.state().state.landmark, None);
    window.get_by_label("draw person 1").click();
    window.run();
    assert!(window.state().state.draw.hidden.is_empty());
}

// ------------------------------------------------------------------------------------------------ heatmaps

#[test]
fn a_click_on_the_frame_picks_the_vertex_under_it() {
    let mut window = window(with_people());
    let head = on_first_person(&window, Vec3::new(0.0, -0.72, 0.0));
    click_at(&mut window, head);
    let Some(Landmark::Vertex(vertex)) = window.state().state.landmark else { panic!("no vertex was picked") };
    let landmark = Landmark::Vertex(vertex);
    assert_eq!(window.state_mut().commands(), [Command::Landmarks(vec![landmark])]);
    assert_eq!(window.state().state.person, Some(1));
    let picked =
        window.state().result.as_ref().unwrap().people[0].mesh.as_ref().unwrap().vertices_camera_m[vertex as usize];
    let off_m = picked - window.state().result.as_ref().unwrap().people[0].root_camera_m - Vec3::new(0.0, -0.72, 0.0);
    assert!(off_m.length() < 0.15, "the vertex is at the head: {off_m} away");
    window.get_by_label("They come with the next frame");

    window.state_mut().result = Some(three_people(&[landmark]));
    window.run();
    for axis in ["x heatmap", "y heatmap", "z heatmap"] {
        window.get_by_label(axis);
    }
    assert_eq!(window.state().state.draw.selected, Some((1, landmark)));
    // Hovering the middle of the x plot names a bin, its probability and where it lies in the frame.
    let middle = window.get_by_label("x heatmap").rect().center();
    window.hover_at(middle);
    window.run_steps(60);
    window.get_by_label_contains("frame x");
    // Escape lets go.
    window.key_press(Key::Escape);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Landmarks(vec![])]);
}

#[test]
fn a_click_into_the_void_changes_nothing() {
    let mut window = window(with_people());
    let wall = on_frame(&window, glam::Vec2::new(20.0, 20.0));
    click_at(&mut window, wall);
    assert_eq!(window.state_mut().commands(), []);
}

#[test]
fn joints_are_picked_by_name_and_vertices_by_number() {
    let mut window = window(with_people());
    window.get_by_label("joint").click();
    window.run();
    window.get_by_label("L wrist").click();
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Landmarks(vec![Landmark::Joint(6)])]);
    window.get_by_role_and_label(Role::SpinButton, "vertex").click();
    window.run();
    for (key, text) in [(Key::Num4, "4"), (Key::Num2, "2")] {
        window.key_press(key);
        window.event(Event::Text(text.into()));
    }
    window.key_press(Key::Enter);
    window.run();
    assert_eq!(window.state().state.landmark, Some(Landmark::Vertex(42)));
    assert_eq!(window.state_mut().commands().last(), Some(&Command::Landmarks(vec![Landmark::Vertex(42)])));
}

#[test]
fn heatmaps_of_no_mass_or_of_nans_do_not_harm() {
    let mut bench = with_people();
    bench.state.landmark = Some(Landmark::Joint(0));
    let mut result = three_people(&[Landmark::Joint(0)]);
    result.people[0].heatmaps[0].xyz = [vec![0.0; 64], vec![f32::NAN; 64], Vec::new()];
    bench.result = Some(result);
    window(bench).get_by_label("z heatmap");
}

#[test]
fn the_peak_of_a_heatmap_is_told_with_its_bin() {
    let mut bench = with_people();
    bench.state.landmark = Some(Landmark::Joint(0));
    let mut result = three_people(&[Landmark::Joint(0)]);
    let heatmaps = &mut result.people[0].heatmaps[0];
    heatmaps.xyz[1] = vec![0.125; 8];
    heatmaps.xyz[1][5] = 0.75;
    heatmaps.mode[1] = 5;
    bench.result = Some(result);
    window(bench).get_by_label("0.75 in 5");
}

// ------------------------------------------------------------------------------------------------ the 3D view

#[test]
fn the_3d_view_turns_moves_zooms_and_fits() {
    let mut window = window(with_people());
    let middle = window.get_by_label("3D view").rect().center();
    let start = window.state().state.orbit;
    let aside = middle + vec2(60.0, 25.0);
    drag(&mut window, middle, aside, PointerButton::Primary, Modifiers::NONE);
    let turned = window.state().state.orbit;
    assert!(turned.yaw_rad != start.yaw_rad && turned.pitch_rad != start.pitch_rad);
    assert_eq!((turned.target_m, turned.distance_m), (start.target_m, start.distance_m));

    for (button, modifiers) in [(PointerButton::Secondary, Modifiers::NONE), (PointerButton::Primary, Modifiers::SHIFT)]
    {
        let before = window.state().state.orbit;
        drag(&mut window, middle, aside, button, modifiers);
        let moved = window.state().state.orbit;
        assert!(moved.target_m != before.target_m);
        assert_eq!((moved.yaw_rad, moved.pitch_rad), (before.yaw_rad, before.pitch_rad));
    }

    window.hover_at(middle);
    let wheel = Event::MouseWheel {
        unit: egui::MouseWheelUnit::Line,
        delta: Vec2::new(0.0, 3.0),
        phase: egui::TouchPhase::Move,
        source: egui::MouseWheelSource::Wheel,
        modifiers: Modifiers::NONE,
    };
    window.event(wheel);
    window.run_steps(30);
    assert!(window.state().state.orbit.distance_m < start.distance_m, "up is nearer");

    let mut expected = window.state().state.orbit;
    let place = window.get_by_label("3D view").rect();
    expected.fit(window.state().result.as_ref().unwrap(), place.width() / place.height());
    assert!(expected != window.state().state.orbit);
    window.key_press(Key::F);
    window.run();
    assert_eq!(window.state().state.orbit, expected);
    assert_eq!(window.state_mut().commands(), [], "none of this is the pipeline's");
}

// ------------------------------------------------------------------------------------------------ controls

#[test]
fn space_holds_and_goes_on_and_an_arrow_steps() {
    let mut window = window(with_people());
    window.key_press(Key::Space);
    window.run();
    window.key_press(Key::Space);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Pause(true), Command::Pause(false)]);
    window.key_press(Key::ArrowRight);
    window.run();
    window.key_press(Key::Period);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Pause(true), Command::Step, Command::Step]);
    window.get_by_label("pause").click();
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Pause(false)]);
    // The pipeline was paused by someone else.
    window.state_mut().status.paused = true;
    window.run();
    window.key_press(Key::Space);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Pause(false)]);
}

#[test]
fn keys_typed_into_a_field_are_text() {
    let mut window = window(with_people());
    window.get_by_label("Source").click();
    window.run();
    window.get_by_label("path").click();
    window.run();
    window.state_mut().commands();
    for (key, text) in [(Key::Space, " "), (Key::R, "r"), (Key::W, "w")] {
        window.key_press(key);
        window.event(Event::Text(text.into()));
    }
    window.run();
    assert_eq!(window.state_mut().commands(), []);
    assert!(!window.state().state.draw.wireframe);
    window.key_press(Key::Enter);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Source(SourceSpec::Path("rw".into()))]);
}

#[test]
fn webcams_are_listed_when_asked_for() {
    let mut window = window(with_people());
    window.get_by_label("Source").click();
    window.run();
    assert!(window.state().actions.contains(&Action::LookForWebcams));
    window.state_mut().webcams = Webcams::Found(vec![(0, "Integrated Camera".into()), (2, "USB Camera".into())]);
    window.run();
    window.get_by_label("2: USB Camera").click();
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Source(SourceSpec::Webcam(2))]);
}

#[test]
fn synthetic_hands_come_with_the_estimator_of_hands() {
    let mut window = window(with_people());
    let choose = |window: &mut Harness<'_, Bench>, name: &str| {
        window.get_by_label("Source").click();
        window.run();
        window.get_by_label(name).click();
        window.run();
        window.state_mut().commands()
    };
    let hands = Command::Source(SourceSpec::synthetic(Kind::Hands));
    let found = choose(&mut window, "Synthetic hands");
    assert_eq!(found, [hands, Command::Estimator(EstimatorKind::Hand)]);
    let found = choose(&mut window, "Synthetic people");
    assert_eq!(found, [Command::Source(SourceSpec::default()), Command::Estimator(EstimatorKind::Body)]);
}

#[test]
fn a_dropped_file_becomes_the_source() {
    let mut window = window(with_people());
    window.input_mut().dropped_files.push(std::sync::Arc::new(Dropped));
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Source(SourceSpec::Path("/videos/a.mp4".into()))]);
}

#[derive(Debug)]
struct Dropped;

impl egui::DroppedFile for Dropped {
    fn path(&self) -> &Path {
        Path::new("/videos/a.mp4")
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        Err("not needed".into())
    }
}

#[test]
fn a_long_note_leaves_room_for_the_views() {
    let mut bench = with_people();
    bench.status.notes = vec!["conv1.weight: missing, expected [64, 3, 7, 7]\n".repeat(150)];
    let view = window(bench).get_by_label("frame view").rect();
    assert!(view.height() > 300.0, "{view:?}");
}

#[test]
fn it_says_whose_weights_the_networks_run_with() {
    let built_in = Weights { role: models::Role::RootNet, origin: Origin::BuiltIn };
    let own = Weights { role: models::Role::I2lBody, origin: Origin::File("models/i2l_body_12.pth.tar".into()) };
    for (weights, says) in [
        (vec![], None),
        (vec![built_in.clone()], Some("built-in weights")),
        (vec![own.clone()], Some("own weights")),
        (vec![built_in, own], Some("own and built-in weights")),
    ] {
        let mut bench = with_people();
        bench.status.weights = weights;
        let mut window = window(bench);
        let all = ["built-in weights", "own weights", "own and built-in weights"];
        assert!(all.iter().all(|text| window.query_by_label(text).is_some() == (says == Some(*text))), "{says:?}");
        let Some(says) = says else { continue };
        let at = window.get_by_label(says).rect().center();
        window.hover_at(at);
        window.run();
        let file = window.query_by_label("models/i2l_body_12.pth.tar").is_some();
        assert_eq!(file, says != "built-in weights", "the file is named: {says}");
        let what = window.query_by_label_contains(models::BUILT_IN).is_some();
        assert_eq!(what, says != "own weights", "what is built in is said: {says}");
    }
}

#[test]
fn at_first_sight_of_people_a_wrist_is_chosen_once() {
    let mut state = State::new(status(Phase::Running).settings);
    let mut actions = Vec::new();
    let nobody = FrameResult { people: Vec::new(), ..three_people(&[]) };
    assert!(!state.greet(&nobody, &mut actions));
    assert_eq!((state.landmark, actions.len()), (None, 0));
    let people = three_people(&[]);
    assert!(state.greet(&people, &mut actions));
    let Some(Landmark::Joint(joint)) = state.landmark else { panic!("{:?}", state.landmark) };
    assert!(people.skeleton.names[joint as usize].contains("wrist"), "{:?}", people.skeleton.names);
    assert_eq!(actions, [Action::Send(Command::Landmarks(vec![Landmark::Joint(joint)]))]);
    // Who has chosen is left alone.
    state.landmark = Some(Landmark::Vertex(3));
    assert!(state.greet(&people, &mut actions));
    assert_eq!((state.landmark, actions.len()), (Some(Landmark::Vertex(3)), 1));
}

#[test]
fn estimator_and_mesh_are_switched_and_the_landmark_forgotten() {
    let mut bench = with_people();
    bench.state.landmark = Some(Landmark::Vertex(5));
    let mut window = window(bench);
    window.get_by_label("Parameters").click();
    window.run();
    window.get_by_label("Hand").click();
    window.run();
    window.get_by_label("Skeleton").click();
    window.run();
    let expected = [
        Command::MeshSource(MeshSource::Param),
        Command::Landmarks(vec![]),
        Command::Estimator(EstimatorKind::Hand),
        Command::Estimator(EstimatorKind::Skeleton),
    ];
    assert_eq!(window.state_mut().commands(), expected);
    assert!(window.query_by_label("Parameters").is_none(), "a skeleton has no mesh to choose");
}

#[test]
fn boxes_are_drawn_on_the_frame() {
    let mut window = window(with_people());
    window.get_by_label("Boxes").click();
    window.run();
    window.get_by_label("I draw them on the frame").click();
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Boxes(BoxSource::User(vec![]))]);
    window.key_press(Key::Escape);
    window.run();

    let (a, b) = (glam::Vec2::new(100.0, 60.0), glam::Vec2::new(340.0, 420.0));
    let (from, to) = (on_frame(&window, b), on_frame(&window, a));
    drag(&mut window, from, to, PointerButton::Primary, Modifiers::NONE);
    let commands = window.state_mut().commands();
    let [Command::Boxes(BoxSource::User(boxes))] = commands.as_slice() else { panic!("{commands:?}") };
    let drawn: [f32; 4] = boxes[0].into();
    for (got, want) in drawn.into_iter().zip([100.0, 60.0, 240.0, 360.0]) {
        assert!((got - want).abs() < 1.0, "{drawn:?}");
    }
    // A slip of the mouse draws nothing, and what leaves the frame is cut.
    let (from, to) = (on_frame(&window, a), on_frame(&window, a + 6.0));
    drag(&mut window, from, to, PointerButton::Primary, Modifiers::NONE);
    assert_eq!(window.state_mut().commands(), []);
    let (from, to) =
        (on_frame(&window, glam::Vec2::new(900.0, 500.0)), on_frame(&window, glam::Vec2::new(970.0, 600.0)));
    drag(&mut window, from, to, PointerButton::Primary, Modifiers::NONE);
    let commands = window.state_mut().commands();
    let [Command::Boxes(BoxSource::User(boxes))] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(boxes.len(), 2);
    assert!(boxes[1].max().x <= 960.0 && boxes[1].max().y <= 540.0);

    window.get_by_label("Boxes").click();
    window.run();
    window.get_by_label("Undo last").click();
    window.run();
    let commands = window.state_mut().commands();
    assert!(matches!(commands.as_slice(), [Command::Boxes(BoxSource::User(left))] if left.len() == 1), "{commands:?}");
    window.get_by_label("The whole frame is one box").click();
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Boxes(BoxSource::WholeFrame)]);
}

#[test]
fn the_camera_is_set_once_and_not_at_every_digit() {
    let mut window = window(with_people());
    window.get_by_label("Camera").click();
    window.run();
    window.get_by_label("Field of view").click();
    window.run();
    let commands = window.state_mut().commands();
    assert_eq!(commands, [Command::Camera(CameraSetting::HorizontalFov(60f32.to_radians()))]);
    window.get_by_label("focal length").click();
    window.run();
    for (key, text) in [(Key::Num8, "8"), (Key::Num0, "0"), (Key::Num0, "0")] {
        window.key_press(key);
        window.event(Event::Text(text.into()));
        window.run();
    }
    assert_eq!(window.state_mut().commands(), []);
    window.key_press(Key::Enter);
    window.run();
    assert_eq!(window.state_mut().commands(), [Command::Camera(CameraSetting::FocalPx(800.0))]);
}

#[test]
fn drawing_options_follow_their_keys() {
    let mut window = window(with_people());
    for key in [Key::W, Key::J, Key::B, Key::C, Key::M] {
        window.key_press(key);
        window.run();
    }
    let draw = &window.state().state.draw;
    assert!(draw.wireframe && draw.joints && draw.boxes && !draw.mesh);
    assert_eq!(draw.colour, MeshColour::Spread);
    window.key_press(Key::F1);
    window.run();
    window.get_by_label("Keys and mouse");
    window.key_press(Key::Escape);
    window.run();
    assert!(window.query_by_label("Keys and mouse").is_none());
}

#[test]
fn the_program_is_asked_to_save_restart_graphics_and_quit() {
    let mut window = window(with_people());
    window.key_press(Key::S);
    window.key_press(Key::F5);
    window.key_press_modifiers(Modifiers::COMMAND, Key::Q);
    window.run();
    let asked = &window.state().actions;
    for action in [Action::SaveFrame, Action::RebuildGraphics, Action::Quit] {
        assert!(asked.contains(&action), "{action:?} is not among {asked:?}");
    }
}

// ------------------------------------------------------------------------------------------------ status and layout

#[test]
fn the_status_line_tells_backend_rate_and_every_stage() {
    let window = window(with_people());
    for text in ["Running", "cpu (2 threads)", "4.7 fps", "4.1 capture", "61.3 detect", "0.8 crop", "22.4 root depth"] {
        window.get_by_label(text);
    }
    for text in ["119 lixel", "3.2 camera mesh", "206 ms in all", "12 dropped"] {
        window.get_by_label(text);
    }
}

#[test]
fn everything_lies_inside_the_window_at_every_size() {
    for (size, scale) in [
        ([640.0, 400.0], 1.0),
        ([800.0, 500.0], 1.0),
        ([1280.0, 800.0], 1.0),
        ([1920.0, 1080.0], 1.0),
        ([960.0, 600.0], 2.0),
        ([3840.0, 2160.0], 1.0),
    ] {
        let mut bench = Bench::new(Some(three_people(&[Landmark::Joint(6)])), status(Phase::Running));
        // Below 500 points of height the plots are scrolled to.
        bench.state.landmark = (size[1] >= 500.0).then_some(Landmark::Joint(6));
        bench.status.notes = vec!["RootNet is missing: put its snapshot into the models folder. ".repeat(2)];
        let window = window_of(bench, size, scale);
        let screen = egui::Rect::from_min_size(Pos2::ZERO, vec2(size[0], size[1])).expand(0.5);
        let mut seen = Vec::new();
        let has_place = |node: &AccessKitNode| node.raw_bounds().is_some() && node.role() != Role::Window;
        for node in window.get_all(by().predicate(has_place)) {
            let rect = node.rect();
            let label = node.accesskit_node().label().or(node.accesskit_node().value()).unwrap_or_default();
            assert!(screen.contains_rect(rect), "{label:?} at {rect:?} leaves a window of {size:?}");
            if node.accesskit_node().role() == Role::Button {
                seen.push((label, rect));
            }
        }
        for (i, (label, rect)) in seen.iter().enumerate() {
            for (other, place) in &seen[..i] {
                assert!(!rect.shrink(1.0).intersects(place.shrink(1.0)), "{label:?} covers {other:?} at {size:?}");
            }
        }
        assert!(seen.len() > 8, "buttons were looked at: {}", seen.len());
    }
}

#[test]
fn views_are_drawn_at_the_pixels_that_they_cover() {
    for scale in [1.0, 2.0] {
        let window = window_of(with_people(), [1280.0, 800.0], scale);
        let output = &window.state().output;
        for (name, size) in [("frame view", output.frame_size_px), ("3D view", output.orbit_size_px)] {
            let rect = window.get_by_label(name).rect();
            let shown = [rect.width() * scale, rect.height() * scale];
            for axis in 0..2 {
                assert!((shown[axis] - size[axis] as f32).abs() < 0.01, "{name} at {scale}: {shown:?}, drawn {size:?}");
            }
            assert!((rect.min * scale - (rect.min * scale).round()).length() < 0.01, "{name} lies on whole pixels");
        }
        let [w, h] = output.frame_size_px.map(|side| side as f32);
        assert!((w / h - 16.0 / 9.0).abs() < 0.01, "the frame keeps its shape");
    }
}

#[test]
fn the_line_between_the_views_is_dragged_and_reset() {
    let mut window = window(with_people());
    let before = window.get_by_label("3D view").rect();
    let line = pos2(before.left() - 0.5, before.center().y);
    drag(&mut window, line, line - vec2(120.0, 0.0), PointerButton::Primary, Modifiers::NONE);
    let after = window.get_by_label("3D view").rect();
    assert!((before.left() - after.left() - 120.0).abs() < 2.0, "{before:?} {after:?}");
    window.key_press(Key::V);
    window.run();
    let (frame, orbit) = (window.get_by_label("frame view").rect(), window.get_by_label("3D view").rect());
    assert!(orbit.top() >= frame.bottom(), "one above the other");
}
