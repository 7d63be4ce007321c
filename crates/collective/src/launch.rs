//! What the launcher of a process says about it: its rank, how many there are, and which it is on its machine.

use crate::CollectiveError;
use std::fmt;

/// Who started this process among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// MPICH's `mpiexec`, or another that sets `PMI_*`.
    Pmi,
    /// SLURM's `srun`.
    Slurm,
    /// `torchrun`, or Kubeflow's `PET_*`.
    Torch,
}

impl Launcher {
    /// The variables that say rank, world and rank on the machine.
    fn variables(self) -> [&'static str; 3] {
        match self {
            Self::OpenMpi => ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"],
            Self::Pmi => ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"],
            // Of the step that srun started: `SLURM_NTASKS` is there in the batch script too, which is one process.
            Self::Slurm => ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"],
            Self::Torch => ["RANK", "WORLD_SIZE", "LOCAL_RANK"],
        }
    }
}

/// A process's place among those of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Who started it.
    pub launcher: Launcher,
    /// The process, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// The process on its machine, from 0; which of the machine's devices it takes.
    pub local: usize,
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rank, world, _] = self.launcher.variables();
        write!(f, "this process was started as rank {} of {} ({rank}, {world})", self.rank, self.world)
    }
}

impl Launch {
    /// From the environment of this process; none where no launcher has left its variables.
    ///
    /// # Errors
    /// [`CollectiveError::Environment`] for variables that make no sense.
    pub fn from_env() -> Result<Option<Self>, CollectiveError> {
        Self::from(|name| std::env::var(name).ok())
    }

    /// From variables by name. The launcher that is nearest to the process comes first: `mpirun` may run inside a SLURM job.
    ///
    /// # Errors
    /// [`CollectiveError::Environment`] for variables that make no sense.
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, CollectiveError> {
        for launcher in [Launcher::OpenMpi, Launcher::Pmi, Launcher::Torch, Launcher::Slurm] {
            let [rank, world, local] = launcher.variables();
            let (Some(rank), Some(world)) = (number(&variable, rank)?, number(&variable, world)?) else { continue };
            let local = number(&variable, local)?.unwrap_or(0);
            if rank >= world {
                let [name, ..] = launcher.variables();
                let value = rank.to_string();
                return Err(CollectiveError::Environment {
                    variable: name,
                    value,
                    what: "rank below the world's size",
                });
            }
            return Ok(Some(Self { launcher, rank, world, local }));
        }
        kubeflow(&variable)
    }
}

/// Kubeflow leaves `torchrun`'s own settings (`PET_*`) to containers that it expects to call `torchrun`. One process a node
/// needs no `torchrun`: its rank is the node's.
fn kubeflow(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Launch>, CollectiveError> {
    let (Some(world), Some(rank)) = (number(variable, "PET_NNODES")?, number(variable, "PET_NODE_RANK")?) else {
        return Ok(None);
    };
    // `auto`, `gpu` and `cpu` are torchrun's to resolve.
    let each = variable("PET_NPROC_PER_NODE").filter(|each| each != "1");
    if let Some(value) = each {
        let what = "number this program can start on a node by itself (start it by torchrun for more than 1)";
        return Err(CollectiveError::Environment { variable: "PET_NPROC_PER_NODE", value, what });
    }
    if rank >= world {
        let (value, what) = (rank.to_string(), "rank below PET_NNODES");
        return Err(CollectiveError::Environment { variable: "PET_NODE_RANK", value, what });
    }
    Ok(Some(Launch { launcher: Launcher::Torch, rank, world, local: 0 }))
}

fn number(variable: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<Option<usize>, CollectiveError> {
    let Some(value) = variable(name) else { return Ok(None) };
    match value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(CollectiveError::Environment { variable: name, value, what: "number" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Launch>, CollectiveError> {
        Launch::from(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn every_launcher_is_understood() {
        let launch = |launcher, rank, world, local| Ok(Some(Launch { launcher, rank, world, local }));
        let torch = [("RANK", "3"), ("WORLD_SIZE", "16"), ("LOCAL_RANK", "3")];
        assert_eq!(of(&torch), launch(Launcher::Torch, 3, 16, 3));
        let slurm = [("SLURM_PROCID", "9"), ("SLURM_STEP_NUM_TASKS", "16"), ("SLURM_LOCALID", "1")];
        assert_eq!(of(&slurm), launch(Launcher::Slurm, 9, 16, 1));
        let ompi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_LOCAL_RANK", "1")];
        assert_eq!(of(&ompi), launch(Launcher::OpenMpi, 1, 2, 1));
        assert_eq!(of(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), launch(Launcher::Pmi, 1, 2, 0));
        assert_eq!(of(&[("PET_NNODES", "4"), ("PET_NODE_RANK", "2")]), launch(Launcher::Torch, 2, 4, 0));
        // mpirun within a job of SLURM.
        assert_eq!(of(&[&ompi[..], &slurm].concat()), launch(Launcher::OpenMpi, 1, 2, 1));
    }

    #[test]
    fn a_batch_script_is_one_process() {
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), Ok(None));
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn nonsense_is_named() {
        let told = |pairs: &[(&str, &str)]| of(pairs).unwrap_err().to_string();
        assert!(told(&[("RANK", "two"), ("WORLD_SIZE", "2")]).starts_with("RANK is `two`, which is no number"));
        assert!(told(&[("RANK", "2"), ("WORLD_SIZE", "2")]).starts_with("RANK is `2`, which is no rank below"));
        let many = [("PET_NNODES", "4"), ("PET_NODE_RANK", "2"), ("PET_NPROC_PER_NODE", "8")];
        assert!(told(&many).contains("torchrun"));
    }
}
