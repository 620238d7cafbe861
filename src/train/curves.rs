//! What a training says of itself: a table of comma-separated values that grows, and beside it a picture of all of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use image::ImageFormat;

use super::plot;
use crate::nets::convert::Partial;

/// First line of the table.
const HEADER: &str = "samples,name,value";

/// Values by their names, by the samples that had been seen when they were noted.
pub type Points = BTreeMap<u64, Vec<(String, f64)>>;

/// See the module.
pub struct Curves {
    table: fs::File,
    path: PathBuf,
    points: Points,
}

impl Curves {
    /// Goes on with a table as it was after `samples`. What an interrupted training noted after its last checkpoint
    /// goes: it happens again.
    pub fn open(path: &Path, samples: u64) -> Result<Self> {
        let open = || {
            let mut points = if path.exists() { read(&fs::read_to_string(path)?)? } else { Points::new() };
            points.split_off(&(samples + 1));
            let partial = Partial::beside(path)?;
            fs::write(
                partial.path(),
                points.iter().fold(format!("{HEADER}\n"), |text, (at, row)| text + &rows(*at, row)),
            )?;
            partial.finish(path)?;
            let table = fs::OpenOptions::new().append(true).open(path)?;
            Ok::<_, anyhow::Error>(Self { table, path: path.to_owned(), points })
        };
        open().with_context(|| format!("cannot go on with the curves in {}", path.display()))
    }

    /// Notes values.
    pub fn add<'a>(&mut self, samples: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<()> {
        let values: Vec<_> = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        // In one piece, so that no half of a row is left when somebody ends this.
        let write = self.table.write_all(rows(samples, &values).as_bytes());
        write.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.points.insert(samples, values);
        Ok(())
    }

    /// The last value of a name.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.points.values().rev().flatten().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Draws all that was noted.
    pub fn draw(&self, picture: &Path) -> Result<()> {
        let draw = || {
            let partial = Partial::beside(picture)?;
            plot::draw(&self.points)?.save_with_format(partial.path(), ImageFormat::Png)?;
            partial.finish(picture)
        };
        draw().with_context(|| format!("cannot draw {}", picture.display()))
    }
}

fn rows(samples: u64, values: &[(String, f64)]) -> String {
    values.iter().fold(String::new(), |text, (name, value)| text + &format!("{samples},{name},{value:.6}\n"))
}

/// Of a value that stands there twice, the later one; a row that is no row, as a full disk leaves them, is left out.
fn read(text: &str) -> Result<Points> {
    let mut lines = text.lines();
    ensure!(lines.next().is_none_or(|line| line == HEADER), "it is another kind of table; move it away");
    let mut points = Points::new();
    for line in lines {
        let row = line.split_once(',').zip(line.rsplit_once(','));
        let Some((samples, name, value)) = row.and_then(|((samples, _), (before, value))| {
            Some((samples.parse().ok()?, before.split_once(',')?.1, value.parse().ok()?))
        }) else {
            continue;
        };
        let values: &mut Vec<(String, f64)> = points.entry(samples).or_default();
        match values.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => values.push((name.to_owned(), value)),
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_on_where_its_training_does() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("curves.csv");
        let text = || fs::read_to_string(&path);
        let mut curves = Curves::open(&path, 0)?;
        for samples in [100, 200, 300] {
            curves.add(samples, [("loss", 900.0 / samples as f64), ("samples_per_sec", 7.0)])?;
        }
        let whole = text()?;
        assert_eq!(whole.lines().nth(1), Some("100,loss,9.000000"));
        drop(curves);

        // The checkpoint is from 200, and the last row was cut.
        fs::write(&path, whole.replace("300,samples_per_sec,7.000000\n", "300,samp"))?;
        let mut curves = Curves::open(&path, 200)?;
        assert_eq!(text()?.lines().last(), Some("200,samples_per_sec,7.000000"));
        curves.add(300, [("loss", 3.0), ("samples_per_sec", 7.0)])?;
        assert_eq!(text()?, whole);

        fs::write(&path, format!("{whole}200,loss,4.0\n"))?;
        Curves::open(&path, 300)?;
        assert_eq!(text()?, whole.replace("200,loss,4.500000", "200,loss,4.000000"), "the later one counts");
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);

        fs::write(&path, "name,age\n")?;
        assert!(format!("{:#}", Curves::open(&path, 0).err().unwrap()).contains("move it away"));
        Ok(())
    }
}
