//! How a bar on a terminal looks. It is drawn once for each look, so that all that it says is of one moment.

use indicatif::{ProgressBar, ProgressStyle};

/// Has `bar` show its message and nothing else.
pub fn plain(bar: ProgressBar) -> ProgressBar {
    // The template is ours; if it were unsound the default one would do.
    match ProgressStyle::with_template("{msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `name [=====>     ]  51%  text`, with `width` columns between the brackets; of nothing all is done.
pub fn text(name: &str, done: u64, total: u64, width: usize, text: &str) -> String {
    let (done, total) = if total == 0 { (1, 1) } else { (u128::from(done.min(total)), u128::from(total)) };
    // Rounded down: neither says 100 % before all is there.
    let filled = usize::try_from(done * width as u128 / total).unwrap_or(width);
    let head = if done > 0 && filled < width { ">" } else { "" };
    let meter = format!("{}{head}", "=".repeat(filled));
    format!("{name} [{meter:width$}] {:>3}%  {text}", done * 100 / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_part_and_full_only_at_the_end() {
        let bar = |done, total| text("a", done, total, 4, "b");
        assert_eq!(bar(0, 8), "a [    ]   0%  b");
        assert_eq!(bar(1, 8), "a [>   ]  12%  b");
        assert_eq!(bar(5, 8), "a [==> ]  62%  b");
        assert_eq!(bar(u64::MAX - 1, u64::MAX), "a [===>]  99%  b");
        assert_eq!(bar(u64::MAX, u64::MAX), "a [====] 100%  b");
        assert_eq!((bar(9, 8), bar(0, 0)), (bar(8, 8), bar(8, 8)));
    }
}
