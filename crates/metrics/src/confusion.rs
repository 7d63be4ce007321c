//! Which classes are taken for which.

use std::io::Write;

use serde::Serialize;

use crate::{Figure, MetricError, argmax};

/// Counts of samples by their class (row) and the class predicted (column).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

/// How often the samples of one class are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassAccuracy {
    /// The class.
    pub class: usize,
    /// Samples of it.
    pub samples: u64,
    /// Those predicted right.
    pub right: u64,
}

impl ClassAccuracy {
    /// Share of samples that are right; none for a class without samples.
    pub fn share(&self) -> Option<f64> {
        (self.samples > 0).then(|| self.right as f64 / self.samples as f64)
    }
}

impl Confusion {
    /// Of scores `[n, classes]`; the class predicted is that of the largest.
    ///
    /// # Errors
    /// [`MetricError`]: another number of scores, labels outside the classes, no classes.
    pub fn of(scores: &[f32], classes: usize, labels: &[usize]) -> Result<Self, MetricError> {
        if classes == 0 {
            return Err(MetricError::Zero("classes"));
        }
        crate::sized("scores", scores.len(), labels.len() * classes)?;
        let predicted: Vec<usize> = scores.chunks_exact(classes).map(argmax).collect();
        Self::of_predictions(&predicted, classes, labels)
    }

    /// Of classes that are predicted already.
    ///
    /// # Errors
    /// As [`Confusion::of`].
    pub fn of_predictions(predicted: &[usize], classes: usize, labels: &[usize]) -> Result<Self, MetricError> {
        crate::sized("predictions", predicted.len(), labels.len())?;
        let mut counts = vec![0u64; classes * classes];
        for (sample, (&label, &other)) in labels.iter().zip(predicted).enumerate() {
            for class in [label, other] {
                if class >= classes {
                    return Err(MetricError::Label { label: class, sample, classes });
                }
            }
            if let Some(count) = counts.get_mut(label * classes + other) {
                *count += 1;
            }
        }
        Ok(Self { classes, counts })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Samples of class `class` that were taken for `predicted`.
    pub fn count(&self, class: usize, predicted: usize) -> u64 {
        let inside = class < self.classes && predicted < self.classes;
        let at = if inside { class * self.classes + predicted } else { usize::MAX };
        self.counts.get(at).copied().unwrap_or(0)
    }

    /// The rows, one per class.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks_exact(self.classes.max(1))
    }

    /// Adds the samples of another matrix of as many classes.
    ///
    /// # Errors
    /// [`MetricError::Size`] for one of other classes.
    pub fn add(&mut self, other: &Self) -> Result<(), MetricError> {
        crate::sized("classes", other.counts.len(), self.counts.len())?;
        self.counts.iter_mut().zip(&other.counts).for_each(|(own, more)| *own += more);
        Ok(())
    }

    /// Accuracy of every class.
    pub fn per_class(&self) -> Vec<ClassAccuracy> {
        let one = |(class, row): (usize, &[u64])| ClassAccuracy {
            class,
            samples: row.iter().sum(),
            right: row.get(class).copied().unwrap_or(0),
        };
        self.rows().enumerate().map(one).collect()
    }

    /// Share of all samples that are right: top-1; 0 for none.
    pub fn accuracy(&self) -> f64 {
        let right: u64 = self.per_class().iter().map(|class| class.right).sum();
        right as f64 / self.counts.iter().sum::<u64>().max(1) as f64
    }

    /// Mean over the classes that have samples: the class-balanced accuracy.
    pub fn class_mean(&self) -> f64 {
        let shares: Vec<f64> = self.per_class().iter().filter_map(ClassAccuracy::share).collect();
        Figure::of(&shares).mean
    }

    /// Writes the matrix as CSV: a header of class names, then a row per class, named too. Classes beyond `names` are called by
    /// their number.
    ///
    /// # Errors
    /// [`MetricError::Write`].
    pub fn write_csv(&self, names: &[String], out: impl Write) -> Result<(), MetricError> {
        let failed = |error: csv::Error| MetricError::Write(error.to_string());
        let mut table = csv::Writer::from_writer(out);
        let header = (0..self.classes).map(|class| name(names, class));
        table.write_record(std::iter::once("class \\ predicted".to_owned()).chain(header)).map_err(failed)?;
        for (class, row) in self.rows().enumerate() {
            let counts = row.iter().map(u64::to_string);
            table.write_record(std::iter::once(name(names, class)).chain(counts)).map_err(failed)?;
        }
        table.flush().map_err(|error| MetricError::Write(error.to_string()))
    }

    /// Writes `class,samples,right,accuracy`; the accuracy of a class without samples is empty.
    ///
    /// # Errors
    /// [`MetricError::Write`].
    pub fn write_per_class_csv(&self, names: &[String], out: impl Write) -> Result<(), MetricError> {
        let failed = |error: csv::Error| MetricError::Write(error.to_string());
        let mut table = csv::Writer::from_writer(out);
        table.write_record(["class", "samples", "right", "accuracy"]).map_err(failed)?;
        for class in self.per_class() {
            let share = class.share().map_or(String::new(), |share| format!("{share:.6}"));
            let row = [name(names, class.class), class.samples.to_string(), class.right.to_string(), share];
            table.write_record(row).map_err(failed)?;
        }
        table.flush().map_err(|error| MetricError::Write(error.to_string()))
    }
}

fn name(names: &[String], class: usize) -> String {
    names.get(class).cloned().unwrap_or_else(|| class.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Confusion {
        let scores = [0.9, 0.1, 0.0, 0.2, 0.8, 0.0, 0.1, 0.7, 0.2, 0.4, 0.3, 0.3];
        Confusion::of(&scores, 3, &[0, 0, 1, 0]).unwrap()
    }

    #[test]
    fn counts_accuracies_and_their_mean() {
        let confusion = example();
        assert_eq!((confusion.count(0, 0), confusion.count(0, 1), confusion.count(1, 1)), (2, 1, 1));
        assert_eq!((confusion.count(0, 3), confusion.count(7, 0), confusion.classes()), (0, 0, 3));
        assert_eq!(confusion.accuracy(), 0.75);
        let per_class = confusion.per_class();
        assert_eq!(per_class[2].share(), None);
        assert!((confusion.class_mean() - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn tables() {
        let names = ["a, b".to_owned(), "c".to_owned()];
        let mut out = Vec::new();
        example().write_csv(&names, &mut out).unwrap();
        let wanted = "class \\ predicted,\"a, b\",c,2\n\"a, b\",2,1,0\nc,0,1,0\n2,0,0,0\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
        let mut out = Vec::new();
        example().write_per_class_csv(&names, &mut out).unwrap();
        let wanted = "class,samples,right,accuracy\n\"a, b\",3,2,0.666667\nc,1,1,1.000000\n2,0,0,\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn sizes_and_labels_are_checked() {
        assert_eq!(Confusion::of(&[0.0; 3], 2, &[0]), Err(MetricError::Size { what: "scores", got: 3, expected: 2 }));
        assert_eq!(Confusion::of(&[0.0; 2], 2, &[2]), Err(MetricError::Label { label: 2, sample: 0, classes: 2 }));
        assert_eq!(Confusion::of(&[], 0, &[]), Err(MetricError::Zero("classes")));
    }
}
