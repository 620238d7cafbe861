//! Optimal assignment: which row belongs to which column so that the sum of profits is largest (the Hungarian
//! method with potentials, O(rows^2 * columns)).

/// For each row of `profit` its column, or `None`. Pairs without a positive profit are never made; rows must have the
/// same length.
pub fn assign(profit: &[Vec<f32>]) -> Vec<Option<usize>> {
    let (rows, columns) = (profit.len(), profit.first().map_or(0, Vec::len));
    if columns == 0 {
        return vec![None; rows];
    }
    // A column of its own for each row stands for "none" and costs nothing; so there are never too few columns.
    let width = columns + rows;
    let cost = |row: usize, column: usize| match profit[row].get(column) {
        Some(&p) if p > 0.0 => -f64::from(p),
        _ => 0.0,
    };
    // Indices from 1; column 0 and row 0 mean "free".
    let mut row_potential = vec![0.0f64; rows + 1];
    let mut column_potential = vec![0.0f64; width + 1];
    let mut row_of = vec![0usize; width + 1];
    let mut previous = vec![0usize; width + 1];
    for row in 1..=rows {
        // The cheapest chain of exchanges that frees a column for this row.
        row_of[0] = row;
        let mut column = 0;
        let mut reach = vec![f64::INFINITY; width + 1];
        let mut done = vec![false; width + 1];
        loop {
            done[column] = true;
            let here = row_of[column];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for j in (1..=width).filter(|&j| !done[j]) {
                let reduced = cost(here - 1, j - 1) - row_potential[here] - column_potential[j];
                if reduced < reach[j] {
                    (reach[j], previous[j]) = (reduced, column);
                }
                if reach[j] < step {
                    (step, next) = (reach[j], j);
                }
            }
            for j in 0..=width {
                if done[j] {
                    row_potential[row_of[j]] += step;
                    column_potential[j] -= step;
                } else {
                    reach[j] -= step;
                }
            }
            column = next;
            if row_of[column] == 0 {
                break;
            }
        }
        while column != 0 {
            let from = previous[column];
            row_of[column] = row_of[from];
            column = from;
        }
    }
    let mut columns_of = vec![None; rows];
    for (column, &row) in row_of[1..=columns].iter().enumerate() {
        if row > 0 && cost(row - 1, column) < 0.0 {
            columns_of[row - 1] = Some(column);
        }
    }
    columns_of
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(profit: &[Vec<f32>], columns: &[Option<usize>]) -> f32 {
        profit.iter().zip(columns).filter_map(|(row, c)| c.map(|c| row[c])).sum()
    }

    /// The best sum over all ways to assign, one row after the other.
    fn best(profit: &[Vec<f32>], used: &mut Vec<bool>) -> f32 {
        let Some((row, rest)) = profit.split_first() else { return 0.0 };
        let mut most = best(rest, used);
        for (c, &p) in row.iter().enumerate() {
            if !used[c] && p > 0.0 {
                used[c] = true;
                most = most.max(p + best(rest, used));
                used[c] = false;
            }
        }
        most
    }

    #[test]
    fn agrees_with_trying_everything() {
        let mut state = 9u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.3
        };
        for (rows, columns) in [(1, 1), (2, 2), (3, 5), (5, 3), (6, 6), (4, 1), (1, 4)] {
            for _ in 0..50 {
                let profit: Vec<Vec<f32>> = (0..rows).map(|_| (0..columns).map(|_| next()).collect()).collect();
                let found = assign(&profit);
                let mut taken: Vec<usize> = found.iter().copied().flatten().collect();
                taken.sort_unstable();
                taken.dedup();
                assert_eq!(taken.len(), found.iter().flatten().count(), "no column twice");
                let expected = best(&profit, &mut vec![false; columns]);
                assert!((total(&profit, &found) - expected).abs() < 1e-5, "{profit:?} {found:?}");
            }
        }
    }

    #[test]
    fn greedy_choices_are_given_up_for_a_better_sum() {
        assert_eq!(assign(&[vec![0.9, 0.8], vec![0.8, 0.1]]), [Some(1), Some(0)]);
    }

    #[test]
    fn nothing_to_gain_means_no_pair() {
        assert_eq!(assign(&[vec![0.0, -1.0, f32::NAN]]), [None]);
        assert_eq!(assign(&[vec![], vec![]]), [None, None]);
        assert!(assign(&[]).is_empty());
    }
}
