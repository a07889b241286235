//! Plots as SVG: lines and points over two axes, linear or logarithmic.
//!
//! A picture stands by itself: its colours follow the reader's light or dark mode, its text is selectable, and it needs
//! nothing from elsewhere. Deliberately not here: anything that moves.

use std::fmt::Write;

use libm::{log, log10, pow};

/// The logarithm of a power may come out a little beside the whole number that it is.
const EXACT: f64 = 1e-9;

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Above it.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is drawn, each in a colour of its own.
    pub series: Vec<Series>,
}

/// One of the two directions.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it means, with its unit.
    pub label: String,
    /// How values are spread on it.
    pub scale: Scale,
}

/// How values are spread on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero on.
    Linear,
    /// By their logarithm, with marks at powers of this; values above zero only.
    Log(u8),
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// In the legend.
    pub name: String,
    /// Ascending x.
    pub points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub mark: Mark,
}

/// How points are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A line through dots: measured.
    Line,
    /// A broken line: published.
    Broken,
    /// Bars from the axis on.
    Bars,
}

/// Values between the two ends of an axis, and where they are marked.
struct Range {
    low: f64,
    high: f64,
    marks: Vec<f64>,
    scale: Scale,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const BOTTOM: f64 = 52.0;
const LINE_HEIGHT: f64 = 20.0;
/// Below the title, before the legend.
const TOP: f64 = 44.0;
/// Of one character of the legend, about.
const CHARACTER: f64 = 7.0;
const COLOURS: usize = 6;

const STYLE: &str = "\
<style>
text{font:13px system-ui,sans-serif;fill:#1f2328}
.title{font-size:15px;font-weight:600}
.page{fill:#fff}.grid{stroke:#d1d9e0;stroke-width:1}.axis{stroke:#59636e;stroke-width:1}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.broken{stroke-dasharray:6 5}
.c0{stroke:#0969da}.c1{stroke:#bc4c00}.c2{stroke:#1a7f37}.c3{stroke:#8250df}.c4{stroke:#bf3989}.c5{stroke:#57606a}
.f0{fill:#0969da}.f1{fill:#bc4c00}.f2{fill:#1a7f37}.f3{fill:#8250df}.f4{fill:#bf3989}.f5{fill:#57606a}
@media(prefers-color-scheme:dark){
text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#30363d}.axis{stroke:#8b949e}
.c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}.c3{stroke:#bc8cff}.c4{stroke:#f778ba}.c5{stroke:#8b949e}
.f0{fill:#58a6ff}.f1{fill:#f0883e}.f2{fill:#3fb950}.f3{fill:#bc8cff}.f4{fill:#f778ba}.f5{fill:#8b949e}
}
</style>
";

impl Plot {
    /// A plot with nothing on it.
    pub fn new(title: &str, x: (&str, Scale), y: (&str, Scale)) -> Self {
        let axis = |(label, scale): (&str, Scale)| Axis { label: label.to_owned(), scale };
        Self { title: title.to_owned(), x: axis(x), y: axis(y), series: Vec::new() }
    }

    /// With these points on it.
    pub fn with(mut self, name: &str, mark: Mark, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points = points.into_iter().collect();
        self.series.push(Series { name: name.to_owned(), points, mark });
        self
    }

    /// The picture.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let mut x = Range::over(all().map(|point| point.0), self.x.scale);
        let y = Range::over(all().map(|point| point.1), self.y.scale);
        if self.series.iter().any(|series| series.mark == Mark::Bars) {
            // Room for the outer halves of the first and the last bar.
            (x.low, x.high) = (x.low - 0.5, x.high + 0.5);
        }
        let (legend, rows) = self.legend();
        let frame = Frame { top: TOP + LINE_HEIGHT * rows, bottom: HEIGHT - BOTTOM, x, y };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n{STYLE}\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"26\">{title}</text>\n{legend}",
            title = escaped(&self.title),
        );
        frame.axes(self, &mut svg);
        for (n, series) in self.series.iter().enumerate() {
            frame.series(n % COLOURS, series, &mut svg);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The names of the series, and how many lines they take.
    fn legend(&self) -> (String, f64) {
        let (mut svg, mut at, mut rows) = (String::new(), LEFT, 1.0);
        for (n, series) in self.series.iter().enumerate() {
            #[allow(clippy::cast_precision_loss)] // A name has some dozen characters.
            let width = 46.0 + CHARACTER * series.name.chars().count() as f64;
            if at > LEFT && at + width > WIDTH - RIGHT {
                (at, rows) = (LEFT, rows + 1.0);
            }
            let (y, colour) = (TOP + LINE_HEIGHT * (rows - 1.0), n % COLOURS);
            let broken = if series.mark == Mark::Broken { " broken" } else { "" };
            put(
                &mut svg,
                format_args!(
                    "<path class=\"line c{colour}{broken}\" d=\"M{at:.1} {y:.1}h22\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                    at + 28.0,
                    y + 4.5,
                    escaped(&series.name)
                ),
            );
            at += width;
        }
        (svg, rows)
    }
}

/// The part of the picture that values are drawn in.
struct Frame {
    top: f64,
    bottom: f64,
    x: Range,
    y: Range,
}

impl Frame {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let across = LEFT + self.x.share(x) * (WIDTH - RIGHT - LEFT);
        (across, self.bottom - self.y.share(y) * (self.bottom - self.top))
    }

    fn axes(&self, plot: &Plot, svg: &mut String) {
        let (right, middle) = (WIDTH - RIGHT, LEFT.midpoint(WIDTH - RIGHT));
        for mark in &self.y.marks {
            let y = self.at((self.x.low, *mark)).1;
            put(svg, format_args!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
            put(
                svg,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    LEFT - 8.0,
                    y + 4.5,
                    number(*mark)
                ),
            );
        }
        for mark in &self.x.marks {
            let x = self.at((*mark, self.y.low)).0;
            put(svg, format_args!("<path class=\"axis\" d=\"M{x:.1} {:.1}v5\"/>", self.bottom));
            put(
                svg,
                format_args!(
                    "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                    self.bottom + 20.0,
                    number(*mark)
                ),
            );
        }
        put(svg, format_args!("<path class=\"axis\" d=\"M{LEFT} {:.1}H{right}\"/>\n", self.bottom));
        put(
            svg,
            format_args!(
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                HEIGHT - 12.0,
                escaped(&plot.x.label)
            ),
        );
        let up = self.top.midpoint(self.bottom);
        put(
            svg,
            format_args!(
                "<text transform=\"translate(16 {up:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                escaped(&plot.y.label)
            ),
        );
    }

    fn series(&self, colour: usize, series: &Series, svg: &mut String) {
        let at: Vec<(f64, f64)> = series.points.iter().map(|point| self.at(*point)).collect();
        if series.mark == Mark::Bars {
            let width = (self.at((self.x.low + 0.8, 0.0)).0 - LEFT).max(1.0);
            for (x, y) in at {
                put(
                    svg,
                    format_args!(
                        "<rect class=\"f{colour}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>\n",
                        x - width / 2.0,
                        self.bottom - y
                    ),
                );
            }
            return;
        }
        let broken = if series.mark == Mark::Broken { " broken" } else { "" };
        put(svg, format_args!("<path class=\"line c{colour}{broken}\" d=\""));
        for (n, (x, y)) in at.iter().enumerate() {
            put(svg, format_args!("{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' }));
        }
        svg.push_str("\"/>\n");
        // So many points are a line by themselves.
        if series.mark == Mark::Line && at.len() <= 40 {
            for (x, y) in at {
                put(svg, format_args!("<circle class=\"f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"));
            }
            svg.push('\n');
        }
    }
}

impl Range {
    fn over(values: impl Iterator<Item = f64> + Clone, scale: Scale) -> Self {
        let fits = |value: &f64| value.is_finite() && (scale == Scale::Linear || *value > 0.0);
        let values = values.filter(fits);
        let high = values.clone().fold(f64::NEG_INFINITY, f64::max);
        let low = values.fold(f64::INFINITY, f64::min);
        match scale {
            Scale::Linear => {
                let high = if high > 0.0 { high } else { 1.0 };
                let step = nice_step(high / 6.0);
                let count = (high / step).ceil();
                let marks = std::iter::successors(Some(0.0), |n| Some(n + 1.0)).take_while(|n| *n <= count);
                Self { low: 0.0, high: step * count, marks: marks.map(|n| n * step).collect(), scale }
            }
            Scale::Log(base) => {
                let base = f64::from(base);
                let (low, high) = if low <= high { (low, high) } else { (1.0, base) };
                let first = (log(low) / log(base) + EXACT).floor();
                let last = (log(high) / log(base) - EXACT).ceil().max(first + 1.0);
                let powers = std::iter::successors(Some(first), |n| Some(n + 1.0)).take_while(|n| *n <= last);
                let marks = powers.map(|n| pow(base, n)).collect();
                Self { low: pow(base, first), high: pow(base, last), marks, scale }
            }
        }
    }

    /// From 0 at the low end to 1 at the high end.
    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log(_) => log(value.max(self.low) / self.low) / log(self.high / self.low),
        };
        share.clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5, 10, 20 .. that is not smaller.
fn nice_step(least: f64) -> f64 {
    let power = pow(10.0, log10(least).floor());
    [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= least * 0.999).unwrap_or(10.0 * power)
}

/// Short, with a suffix for what is large.
fn number(value: f64) -> String {
    let (value, suffix) = match value {
        v if v >= 1_048_576.0 && v % 1_048_576.0 == 0.0 => (v / 1_048_576.0, "Mi"),
        v if v >= 1_024.0 && v % 1_024.0 == 0.0 => (v / 1_024.0, "Ki"),
        v if v >= 1_000_000.0 => (v / 1_000_000.0, "M"),
        v if v >= 10_000.0 => (v / 1_000.0, "k"),
        v => (v, ""),
    };
    let digits = format!("{value:.3}");
    format!("{}{suffix}", digits.trim_end_matches('0').trim_end_matches('.'))
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            // XML has no way to say these.
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

fn put(svg: &mut String, args: std::fmt::Arguments<'_>) {
    // A string takes all that is written to it.
    let _ = svg.write_fmt(args);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(x: Scale, y: Scale, points: &[(f64, f64)]) -> String {
        Plot::new("a < b & \"c\"", ("nodes", x), ("hops", y)).with("one", Mark::Line, points.to_vec()).svg()
    }

    #[test]
    fn text_is_escaped_and_every_point_is_drawn() {
        let svg = plot(Scale::Log(2), Scale::Linear, &[(8.0, 1.5), (64.0, 3.0), (1_024.0, 5.0)]);
        assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && !svg.contains("a < b"));
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains(">8</text>") && svg.contains(">1Ki</text>") && svg.contains("prefers-color-scheme:dark"));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        for (high, end) in [(5.1, 6.0), (0.46, 0.5), (97.0, 100.0), (1_234.0, 1_500.0), (0.0, 1.0)] {
            let range = Range::over([0.0, high].into_iter(), Scale::Linear);
            assert!((range.high - end).abs() < 1e-9, "{high} ends at {}", range.high);
            assert!((3..=8).contains(&range.marks.len()), "{:?}", range.marks);
        }
        let range = Range::over([3.0, 900.0].into_iter(), Scale::Log(10));
        assert_eq!((range.low, range.high, range.marks.len()), (1.0, 1_000.0, 4));
        assert!((range.share(1_000.0) - 1.0).abs() < 1e-9 && range.share(0.0) < 1e-9);
    }

    #[test]
    fn numbers_are_short() {
        let cases = [(0.0, "0"), (0.05, "0.05"), (2.5, "2.5"), (500.0, "500"), (2_000.0, "2000")];
        for (value, text) in cases.into_iter().chain([(20_000.0, "20k"), (2_048.0, "2Ki"), (1_048_576.0, "1Mi")]) {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_plot_without_points_and_one_with_strange_values_are_still_pictures() {
        for points in [vec![], vec![(0.0, f64::NAN)], vec![(f64::INFINITY, -1.0)], vec![(1.0, 1.0)]] {
            for scale in [Scale::Linear, Scale::Log(10)] {
                let svg = plot(scale, scale, &points);
                assert!(!svg.contains("inf") && svg.ends_with("</svg>\n"), "{svg}");
            }
        }
    }

    #[test]
    fn bars_stand_on_the_axis() {
        let svg = Plot::new("t", ("x", Scale::Linear), ("y", Scale::Linear))
            .with("n", Mark::Bars, [(1.0, 3.0), (2.0, 6.0)])
            .svg();
        assert_eq!(svg.matches("<rect class=\"f0\"").count(), 2);
    }
}
