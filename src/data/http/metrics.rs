//! The text of `OpenMetrics` 1.0, which Prometheus and its like read.

use std::fmt::Write;

use super::message::HttpResponse;
use crate::data::{Metric, MetricKind};

const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The answer to `GET /metrics`.
pub(super) fn render_metrics(metrics: &[Metric]) -> HttpResponse {
    HttpResponse::empty(200).with("Content-Type", TYPE).with_body(text(metrics).into_bytes())
}

fn text(metrics: &[Metric]) -> String {
    let mut text = String::new();
    for Metric { name, help, kind, samples } in metrics {
        let (kind, end) = match kind {
            MetricKind::Gauge => ("gauge", ""),
            MetricKind::Counter => ("counter", "_total"),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "# TYPE {name} {kind}\n# HELP {name} {}\n", escaped(help));
        for (label, value) in samples {
            let label =
                label.as_ref().map(|(of, value)| format!("{{{of}=\"{}\"}}", escaped(value))).unwrap_or_default();
            let _ = writeln!(text, "{name}{end}{label} {value}");
        }
    }
    text.push_str("# EOF\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_told_as_openmetrics_wants_it() {
        let counts = [("no_key", 3), ("a\"b\\", 1)];
        let all = [
            Metric::gauge("chordkv_keys", "Keys here.", 7),
            Metric::counters("chordkv_peers_refused", "Refused peers.", "reason", counts.into_iter()),
        ];
        let response = render_metrics(&all);
        assert_eq!(response.header("Content-Type"), Some(TYPE));
        let expected = "# TYPE chordkv_keys gauge\n# HELP chordkv_keys Keys here.\nchordkv_keys 7\n\
                        # TYPE chordkv_peers_refused counter\n# HELP chordkv_peers_refused Refused peers.\n\
                        chordkv_peers_refused_total{reason=\"no_key\"} 3\n\
                        chordkv_peers_refused_total{reason=\"a\\\"b\\\\\"} 1\n# EOF\n";
        assert_eq!(String::from_utf8(response.body).unwrap(), expected);
    }
}
