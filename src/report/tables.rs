//! Tables of HTML reports, and the words of a section as a card.

use super::escape::{breakable, escaped};
use super::sections::{Section, Table};
use std::fmt::Write;

/// A cell: what is shown, and what it is sorted by where that is something else.
pub(super) struct Cell {
    text: String,
    sort: Option<String>,
    class: &'static str,
}

impl Cell {
    /// A text.
    pub(super) fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), sort: None, class: "" }
    }

    /// A number, sorted by `number` and shown as `text`.
    pub(super) fn number(text: impl Into<String>, number: u64) -> Cell {
        Cell { text: text.into(), sort: Some(number.to_string()), class: "number" }
    }

    /// The same, sorted by a number.
    pub(super) fn sorted(mut self, number: u64) -> Cell {
        self.sort = Some(number.to_string());
        self
    }

    /// The same with a class of the style sheet.
    pub(super) fn class(mut self, class: &'static str) -> Cell {
        self.class = class;
        self
    }
}

/// A table; with a `name` it can be sorted and filtered.
pub(super) fn table(page: &mut String, name: Option<&str>, heads: &[&str], rows: &[Vec<Cell>]) {
    let sort = name.map(|name| format!(" data-sort=\"{}\"", escaped(name))).unwrap_or_default();
    let _infallible = write!(page, "<div class=\"scroll\"><table{sort}><thead><tr>");
    for (i, head) in heads.iter().enumerate() {
        // A head stands over its numbers.
        let numbers = rows.iter().filter_map(|row| row.get(i)).any(|cell| cell.class == "number");
        let class = if numbers { " class=\"number\"" } else { "" };
        let _infallible = write!(page, "<th scope=\"col\"{class}>{}</th>", escaped(head));
    }
    page.push_str("</tr></thead><tbody>");
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let class =
                if cell.class.is_empty() { String::new() } else { format!(" class=\"{}\"", cell.class) };
            let sort =
                cell.sort.as_ref().map(|sort| format!(" data-v=\"{}\"", escaped(sort))).unwrap_or_default();
            let _infallible = write!(page, "<td{class}{sort}>{}</td>", breakable(&cell.text));
        }
        page.push_str("</tr>");
    }
    page.push_str("</tbody></table></div>");
}

fn plain(page: &mut String, list: &Table) {
    let rows: Vec<Vec<Cell>> =
        list.rows.iter().map(|row| row.iter().map(|cell| Cell::text(cell.clone())).collect()).collect();
    table(page, None, &list.heads, &rows);
}

/// A section as a card.
pub(super) fn card(page: &mut String, section: &Section) {
    let wide = if section.table.is_some() { " wide" } else { "" };
    let _infallible = write!(page, "<article class=\"card{wide}\"><h3>{}</h3>", escaped(section.title));
    if section.rows.iter().all(|(name, _)| name.is_empty()) {
        page.push_str("<ul>");
        for (_, value) in &section.rows {
            let _infallible = write!(page, "<li>{}</li>", breakable(value));
        }
        page.push_str("</ul>");
    } else {
        page.push_str("<dl>");
        for (name, value) in &section.rows {
            let absent = matches!(value.as_str(), "not set" | "unknown" | "none");
            let class = if absent { " class=\"absent\"" } else { "" };
            let _infallible = write!(page, "<dt>{}</dt><dd{class}>{}</dd>", escaped(name), breakable(value));
        }
        page.push_str("</dl>");
    }
    if let Some(list) = &section.table {
        plain(page, list);
    }
    page.push_str("</article>");
}
