//! Figures with bars, and what they come to over many seeds.

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// So much or less.
    AtMost(f64),
    /// So much or more.
    AtLeast(f64),
    /// Anything: it is only reported.
    None,
}

impl Bar {
    /// Whether a value is as it has to be.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
            Self::None => true,
        }
    }
}

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Which part of the scenario.
    pub case: String,
    /// What is measured.
    pub name: &'static str,
    /// How much it was.
    pub value: f64,
    /// How much it should be.
    pub bar: Bar,
}

/// The figures of one scenario with one seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(pub Vec<Figure>);

impl Figures {
    /// Adds one.
    pub fn add(&mut self, case: &str, name: &'static str, value: f64, bar: Bar) {
        self.0.push(Figure { case: case.to_owned(), name, value, bar });
    }

    /// The value of one.
    pub fn value(&self, case: &str, name: &str) -> Option<f64> {
        self.0.iter().find(|figure| figure.case == case && figure.name == name).map(|figure| figure.value)
    }
}

/// One figure over all seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Which figure; its value is the mean.
    pub figure: Figure,
    /// Least and greatest.
    pub range: (f64, f64),
}

/// The mean of each figure of runs of one scenario, in order.
pub fn summary(runs: &[Figures]) -> Vec<Line> {
    let Some(first) = runs.first() else { return Vec::new() };
    let line = |(at, figure): (usize, &Figure)| {
        let values: Vec<f64> = runs.iter().map(|run| run.0[at].value).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Line { figure: Figure { value: mean, ..figure.clone() }, range: (least, greatest) }
    };
    first.0.iter().enumerate().map(line).collect()
}
