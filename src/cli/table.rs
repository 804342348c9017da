//! Columns for people.

/// Rows as lines, each column as wide as its widest cell, two spaces between them.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
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
        let rows = [["ID", "STATUS", "NAME"], ["job_1", "queued", "é"], ["j", "", ""]]
            .map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows), "ID     STATUS  NAME\njob_1  queued  é\nj");
        assert_eq!(columns::<2>(&[]), "");
    }
}
