//! What each cell of the grid is to say of a picture.

use crate::detect::nms::Corners;
use crate::nets::person_detector::{STRIDE, cell_centre};

/// A cell belongs to a person when it lies this near to the middle of the box, in parts of the box's sides.
const MIDDLE: f32 = 0.2;

/// A person in a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Around the pixels that show the person, in pixels of the network's input from its top-left corner.
    pub corners: Corners,
    /// Whether the person is to be found. Of one who is hardly seen, it is neither right nor wrong to say so.
    pub counts: bool,
}

/// What a cell is to say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// Nobody's middle is here.
    Nobody,
    /// Whatever it likes.
    Anything,
    /// It is one of the middle cells of a person.
    Person {
        /// The box.
        corners: Corners,
        /// What it weighs in the loss of the boxes: 1 over the number of the person's cells, so that near people
        /// weigh no more than far ones.
        share: f32,
    },
}

/// The cells of a grid of `columns` x `rows`, row by row. Of several people whose middle is at a cell, the one whose
/// middle is nearest has it. A person too small for a cell's centre to lie in the middle
/// has the nearest cell, unless that is the nearest of a smaller one.
pub fn cells(people: &[Target], [columns, rows]: [usize; 2]) -> Vec<Cell> {
    // Whose each cell is, and how far the person's middle is away, squared pixels.
    let mut owners: Vec<Option<(usize, f32)>> = vec![None; columns * rows];
    let counting = || people.iter().enumerate().filter(|(_, person)| person.counts);
    for (who, person) in counting() {
        let [w, h] = sides(person.corners);
        for_cells_within(person.corners, [columns, rows], |at, [x, y]| {
            let distance = x * x + y * y;
            let is_middle = x.abs() < MIDDLE * w && y.abs() < MIDDLE * h;
            if is_middle && owners[at].is_none_or(|(_, nearest)| distance < nearest) {
                owners[at] = Some((who, distance));
            }
        });
    }
    // Small ones last, so that they are not lost.
    let mut by_size: Vec<(usize, &Target)> = counting().collect();
    let area = |person: &Target| sides(person.corners).iter().product::<f32>();
    by_size.sort_by(|(_, a), (_, b)| area(b).total_cmp(&area(a)));
    for (who, person) in by_size {
        if owners.iter().flatten().all(|(owner, _)| *owner != who) {
            let [x, y] = centre(person.corners);
            let at = |middle: f32, count: usize| ((middle / STRIDE as f32) as usize).min(count - 1);
            owners[at(y, rows) * columns + at(x, columns)] = Some((who, 0.0));
        }
    }
    let mut counts = vec![0_u32; people.len()];
    for (owner, _) in owners.iter().flatten() {
        counts[*owner] += 1;
    }
    let mut cells: Vec<Cell> = owners
        .into_iter()
        .map(|owner| {
            owner.map_or(Cell::Nobody, |(who, _)| Cell::Person {
                corners: people[who].corners,
                share: 1.0 / counts[who] as f32,
            })
        })
        .collect();
    for person in people.iter().filter(|person| !person.counts) {
        // All cells that the box touches.
        let half = STRIDE as f32 / 2.0;
        let [x0, y0, x1, y1] = person.corners;
        for_cells_within([x0 - half, y0 - half, x1 + half, y1 + half], [columns, rows], |at, _| {
            if cells[at] == Cell::Nobody {
                cells[at] = Cell::Anything;
            }
        });
    }
    cells
}

/// Width and height.
fn sides([x0, y0, x1, y1]: Corners) -> [f32; 2] {
    [x1 - x0, y1 - y0]
}

/// The middle.
fn centre([x0, y0, x1, y1]: Corners) -> [f32; 2] {
    [f32::midpoint(x0, x1), f32::midpoint(y0, y1)]
}

/// Calls `each` with the index of every cell whose centre is in a box, and with where it lies from the box's centre,
/// pixels.
fn for_cells_within(corners: Corners, [columns, rows]: [usize; 2], mut each: impl FnMut(usize, [f32; 2])) {
    let ([x0, y0, x1, y1], [middle_x, middle_y]) = (corners, centre(corners));
    let range = |from: f32, to: f32, count: usize| {
        let cell = |edge: f32| (edge / STRIDE as f32 + 0.5).max(0.0) as usize;
        cell(from).min(count)..cell(to).min(count)
    };
    for row in range(y0, y1, rows) {
        for column in range(x0, x1, columns) {
            let [x, y] = cell_centre([column, row]);
            each(row * columns + column, [x - middle_x, y - middle_y]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(corners: Corners) -> Target {
        Target { corners, counts: true }
    }

    /// Columns and rows of the cells that have this box.
    fn places(cells: &[Cell], columns: usize, of: Corners) -> Vec<[usize; 2]> {
        let is = |cell: &Cell| matches!(cell, Cell::Person { corners, .. } if *corners == of);
        (0..cells.len()).filter(|&at| is(&cells[at])).map(|at| [at % columns, at / columns]).collect()
    }

    #[test]
    fn the_middle_of_a_box_says_the_box() {
        // Centres of cells are at 4, 12, 20, ...; the middle of this box is 32 +- 8 across and 48 +- 16 down.
        let person = [12.0, 8.0, 52.0, 88.0];
        let cells = cells(&[target(person)], [12, 12]);
        assert_eq!(places(&cells, 12, person).len(), 2 * 4);
        assert_eq!(places(&cells, 12, person)[0], [3, 4]);
        assert!(cells.contains(&Cell::Person { corners: person, share: 0.125 }));
        assert_eq!(cells.iter().filter(|cell| **cell == Cell::Nobody).count(), 144 - 8);
    }

    #[test]
    fn nobody_is_lost() {
        // One is before the other, and a third fits between the centres of cells.
        let (near, far, small) = ([0.0, 0.0, 80.0, 96.0], [36.0, 30.0, 52.0, 66.0], [45.0, 69.0, 50.0, 74.0]);
        let cells = cells(&[target(small), target(near), target(far)], [12, 12]);
        assert_eq!(places(&cells, 12, small), [[5, 8]]);
        // Its middle is 44 +- 3.2 across and 48 +- 7.2 down; that of the near one, at (40, 48), is farther away.
        assert_eq!(places(&cells, 12, far), [[5, 5], [5, 6]]);
        let near = places(&cells, 12, near);
        assert!(near.len() > 8 && near.contains(&[4, 5]), "{near:?}");
        assert!(super::cells(&[], [3, 2]).iter().all(|cell| *cell == Cell::Nobody));
    }

    #[test]
    fn who_is_hardly_seen_neither_counts_nor_is_nobody() {
        let hidden = Target { corners: [30.0, 30.0, 62.0, 62.0], counts: false };
        let seen = [40.0, 30.0, 80.0, 70.0];
        let cells = cells(&[hidden, target(seen)], [12, 12]);
        let anything = cells.iter().filter(|cell| **cell == Cell::Anything).count();
        let owned = places(&cells, 12, seen).len();
        // The box touches cells 3 to 7 each way; two of them are in the other's middle.
        assert_eq!((owned, anything), (2, 25 - 2));
        assert_eq!(cells[4 * 12 + 4], Cell::Anything);
    }
}
