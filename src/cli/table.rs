//! Columns for people.

use super::output::printable;

/// A table: its head, and a line for each row.
pub(super) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    columns([head.map(str::to_owned)].into_iter().chain(rows))
}

/// Names and values, a pair a line.
pub(super) fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    columns(pairs.into_iter().map(|(name, value)| [name.to_owned(), value]))
}

/// Rows as lines, each column as wide as its widest cell, two spaces between them. What is in a cell stays in its line.
fn columns<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| printable(&cell).into_owned())).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let lines: Vec<_> = rows.iter().map(|row| line(row, &widths)).collect();
    lines.join("\n")
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<_> = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
    padded.join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = [["job_1", "queued", "é"], ["j", "", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(table(["ID", "STATUS", "NAME"], rows), "ID     STATUS  NAME\njob_1  queued  é\nj");
        assert_eq!(columns::<2>([]), "");
    }

    #[test]
    fn a_cell_begins_no_line() {
        assert_eq!(pairs([("file", "a\njob  completed".to_owned())]), "file  a\u{fffd}job  completed");
    }
}
