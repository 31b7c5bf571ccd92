//! Aligned tables: a line of names, and rows of cells. Foreign text goes in raw and comes out escaped.

use crate::base::human::escape_for_terminal;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under the names of their columns.
#[derive(Debug)]
pub struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows yet.
    pub fn new(columns: &[(&str, Side)]) -> Self {
        let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self { sides: columns.iter().map(|(_, side)| *side).collect(), rows: vec![names] }
    }

    /// One cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.sides.len());
        self.rows.push(cells.iter().map(|cell| escape_for_terminal(cell)).collect());
    }

    /// One line for each row, two spaces between columns, none at the end.
    pub fn text(&self) -> String {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..self.sides.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&self.sides).zip(&widths).map(|((cell, side), &width)| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_end_of_spaces() {
        let mut table = Table::new(&[("NAME", Side::Left), ("SIZE", Side::Right), ("WHY", Side::Left)]);
        table.row(vec!["\u{b5}Torrent".to_owned(), "1".to_owned(), "because".to_owned()]);
        table.row(vec!["b".to_owned(), "1.50 GiB".to_owned(), String::new()]);
        let lines = ["NAME          SIZE  WHY", "\u{b5}Torrent         1  because", "b         1.50 GiB"];
        assert_eq!(table.text(), lines.map(|line| format!("{line}\n")).concat());
    }

    #[test]
    fn t12_a_cell_cannot_add_a_line() {
        let mut table = Table::new(&[("A", Side::Left)]);
        table.row(vec!["x\ny\u{1b}[2J".to_owned()]);
        assert_eq!(table.text(), "A\nx\\u{a}y\\u{1b}[2J\n");
    }
}
