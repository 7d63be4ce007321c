//! `<tag>-metrics.csv`: numbers by step.

use std::path::Path;

use crate::ReportError;

/// Points of a curve: step and value.
pub type Points = Vec<(f64, f64)>;

/// The metrics of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsTable {
    columns: Vec<String>,
    /// Values by row; NaN for what is no number.
    rows: Vec<Vec<f64>>,
    /// Lines that could not be understood.
    pub damaged: usize,
}

impl MetricsTable {
    /// Reads a file. A last line that is still being written is left out.
    ///
    /// # Errors
    /// [`ReportError::Read`]; [`ReportError::Malformed`] for a file whose first column is not `step`.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let bytes = std::fs::read(path).map_err(|source| ReportError::read(path, source))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes.get(..whole).unwrap_or_default());
        let malformed = |reason: String| ReportError::Malformed { path: path.to_owned(), reason };
        let header = reader.headers().map_err(|error| malformed(error.to_string()))?;
        let columns: Vec<String> = header.iter().map(str::to_owned).collect();
        if columns.first().is_none_or(|name| name != "step") {
            return Err(malformed("is not a file of metrics: its first column is not `step`".to_owned()));
        }
        let mut table = Self { columns, ..Self::default() };
        for record in reader.records() {
            match record.ok().filter(|record| record.len() == table.columns.len()) {
                Some(record) => table.rows.push(record.iter().map(|text| text.parse().unwrap_or(f64::NAN)).collect()),
                None => table.damaged += 1,
            }
        }
        let before = table.rows.len();
        table.rows.retain(|row| row.first().is_some_and(|step| step.is_finite()));
        table.damaged += before - table.rows.len();
        Ok(table)
    }

    /// A column by step, without what is no number in the file; empty where there is no such column.
    pub fn points(&self, name: &str) -> Points {
        let Some(column) = self.columns.iter().position(|column| column == name) else { return Vec::new() };
        let point = |row: &Vec<f64>| Some((*row.first()?, *row.get(column)?));
        self.rows.iter().filter_map(point).filter(|point| !point.1.is_nan()).collect()
    }

    /// The latest value of a column.
    pub fn latest(&self, name: &str) -> Option<f64> {
        self.points(name).last().map(|point| point.1)
    }

    /// Names of the columns that begin so.
    pub fn beginning(&self, prefix: &str) -> Vec<&str> {
        self.columns.iter().map(String::as_str).filter(|name| name.starts_with(prefix)).collect()
    }

    /// The last step there is a line of, from 0.
    pub fn step(&self) -> Option<u64> {
        self.rows.last().and_then(|row| row.first()).map(|step| *step as u64)
    }

    /// A quotient of two columns, times `factor`.
    pub fn ratio(&self, over: &str, under: &str, factor: f64) -> Points {
        let under = self.points(under);
        let mut under = under.iter().peekable();
        let of = |(step, value): (f64, f64)| {
            while under.next_if(|point| point.0 < step).is_some() {}
            let below = under.next_if(|point| point.0 == step)?.1;
            (below > 0.0).then(|| (step, factor * value / below))
        };
        self.points(over).into_iter().filter_map(of).collect()
    }

    /// Clips learned from a second, from the growth of `clips` and the time of the step; empty where `clips` is not kept.
    pub fn throughput(&self) -> Points {
        let clips = self.points("clips");
        let took = self.points("step_ms");
        let before = std::iter::once((-1.0, 0.0)).chain(clips.iter().copied());
        let grown = clips.iter().zip(before).filter_map(|(now, before)| {
            let steps = now.0 - before.0;
            (steps > 0.0 && now.1 >= before.1).then(|| (now.0, (now.1 - before.1) / steps))
        });
        let mut took = took.iter().peekable();
        let rate = |(step, clips): (f64, f64)| {
            while took.next_if(|point| point.0 < step).is_some() {}
            let ms = took.next_if(|point| point.0 == step)?.1;
            (ms > 0.0).then(|| (step, 1e3 * clips / ms))
        };
        grown.filter_map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<MetricsTable, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa-metrics.csv");
        std::fs::write(&path, text).unwrap();
        MetricsTable::read(&path)
    }

    #[test]
    fn half_a_line_is_left_out_and_a_damaged_one_counted() {
        let table = read("step,loss,tokens,clips,data_ms,step_ms\n0,0.5,3+4,8,1,100\nx,1,2,3,4,5\n1,0.4\n10,0.25,3+4,88,50,200\n20,0.")
            .unwrap();
        assert_eq!((table.step(), table.damaged), (Some(10), 2));
        assert_eq!(table.points("loss"), [(0.0, 0.5), (10.0, 0.25)]);
        assert_eq!(table.points("tokens"), []);
        assert_eq!(table.points("none"), []);
        assert_eq!(table.throughput(), [(0.0, 80.0), (10.0, 40.0)]);
        assert_eq!(table.ratio("data_ms", "step_ms", 100.0), [(0.0, 1.0), (10.0, 25.0)]);
        assert_eq!(table.beginning("step"), ["step", "step_ms"]);
        assert_eq!(table.latest("loss"), Some(0.25));
    }

    #[test]
    fn a_run_without_a_line_and_files_of_another_kind() {
        let empty = read("step,loss\n").unwrap();
        assert_eq!((empty.step(), empty.latest("loss"), empty.damaged), (None, None, 0));
        for text in ["", "a,b\n1,2\n", "step"] {
            assert!(read(text).unwrap_err().to_string().contains("jepa-metrics.csv"), "{text}");
        }
    }
}
