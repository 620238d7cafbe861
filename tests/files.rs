use glam::Vec3;
use lixelscope::body::BodyModel;
use lixelscope::nets::weights::WeightFile;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn both_torch_containers_hold_the_expected_tensors() {
    let expected = WeightFile::open(golden("checkpoint_expected.safetensors")).unwrap();
    for name in ["checkpoint_zip.pth.tar", "checkpoint_legacy.pth.tar"] {
        let file = WeightFile::open(golden(name)).unwrap();
        for n in file.names() {
            println!("{n} {:?} {:?}", file.shape(n), file.dtype(n));
        }
        assert!(file.names().eq(expected.names()));
        for tensor in expected.names() {
            assert_eq!(file.dtype(tensor), expected.dtype(tensor), "{tensor}");
            assert_eq!(file.shape(tensor), expected.shape(tensor), "{tensor}");
            assert!(file.data(tensor).unwrap() == expected.data(tensor).unwrap(), "{tensor}");
        }
    }
}
fn vec3s(f: &WeightFile, name: &str) -> Vec<Vec<Vec3>> {
    let (shape, data) = f.values(name).unwrap();
    let per = data.len() / shape[0];
    data.chunks(per).map(|c| c.chunks(3).map(|v| Vec3::new(v[0] as f32, v[1] as f32, v[2] as f32)).collect()).collect()
}
#[test]
fn lbs() {
    for (case, body, unit) in [
        ("lbs_smpl", "smpl_layout_chumpy_py2.pkl", 1.0),
        ("lbs_smpl", "smpl_layout_plain_py3.pkl", 1.0),
        ("lbs_smpl", "smpl_layout.npz", 1.0),
        ("lbs_mano", "mano_layout_chumpy_py2.pkl", 1e-3f32),
    ] {
        let f = WeightFile::open(golden(&format!("{case}.safetensors"))).unwrap();
        let model = BodyModel::open(&golden(body)).unwrap();
        let s = if unit == 1.0 { "m" } else { "mm" };
        let (v, j) = (vec3s(&f, &format!("vertices_{s}")), vec3s(&f, &format!("joints_{s}")));
        let pose = vec3s(&f, "pose");
        let trans = vec3s(&f, "trans");
        let (bs, betas) = f.values("betas").unwrap();
        for i in 0..pose.len() {
            let shape: Vec<f32> = betas[i * bs[1]..(i + 1) * bs[1]].iter().map(|&b| b as f32).collect();
            let posed = model.pose(&pose[i], &shape, trans[i][0]).unwrap();
            let d = |a: &[Vec3], b: &[Vec3]| {
                assert_eq!(a.len(), b.len());
                a.iter().zip(b).map(|(a, b)| (*a - *b * unit).length()).fold(0.0, f32::max)
            };
            println!(
                "{case} {body} {i}: {} {} joints {:?}",
                d(&posed.vertices_m, &v[i]),
                d(&posed.joints_m, &j[i]),
                model.topology().skeleton.names.len()
            );
        }
    }
}
#[test]
fn which() {
    let f = WeightFile::open(golden("lbs_mano.safetensors")).unwrap();
    let model = BodyModel::open(&golden("mano_layout_chumpy_py2.pkl")).unwrap();
    let (v, j) = (vec3s(&f, "vertices_mm"), vec3s(&f, "joints_mm"));
    let pose = vec3s(&f, "pose");
    let trans = vec3s(&f, "trans");
    let (bs, betas) = f.values("betas").unwrap();
    for i in 0..1 {
        let shape: Vec<f32> = betas[i * bs[1]..(i + 1) * bs[1]].iter().map(|&b| b as f32).collect();
        let posed = model.pose(&pose[i], &shape, trans[i][0]).unwrap();
        for (k, g) in j[i].iter().enumerate() {
            let g = *g * 1e-3;
            let best = (0..21)
                .min_by(|&a, &b| (posed.joints_m[a] - g).length().total_cmp(&(posed.joints_m[b] - g).length()))
                .unwrap();
            let bv = (0..778)
                .min_by(|&a, &b| (posed.vertices_m[a] - g).length().total_cmp(&(posed.vertices_m[b] - g).length()))
                .unwrap();
            println!(
                "{k} {} -> {best} {} vertex {bv} {}",
                model.topology().skeleton.names[k],
                (posed.joints_m[best] - g).length(),
                (posed.vertices_m[bv] - g).length()
            );
        }
    }
}
