//! How many threads there is work for.

/// The cores this process may use: those of its affinity mask and cpuset, or fewer where its control group has a CPU quota
/// (`docker run --cpus`, Kubernetes limits, systemd's `CPUQuota=`; cgroups v1 and v2, a share of a core not counted). None
/// where the system does not say.
pub fn cores() -> Option<usize> {
    std::thread::available_parallelism().ok().map(usize::from)
}

/// [`cores`], where they are fewer than the machine's: a library that counts the machine's would start too many threads.
#[cfg(feature = "ort")]
pub(crate) fn fewer_than_the_machine_has() -> Option<usize> {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok()?;
    let machine = count(online.trim())?;
    cores().filter(|cores| *cores < machine)
}

/// How many numbers a list like `0-3,6` has.
#[cfg(feature = "ort")]
fn count(list: &str) -> Option<usize> {
    list.split(',').try_fold(0usize, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(all(test, feature = "ort"))]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, wanted) in [("0", Some(1)), ("0-3", Some(4)), ("0-3,6,8-9", Some(7)), ("", None), ("3-0", None)] {
            assert_eq!(count(list), wanted, "{list}");
        }
    }

    /// The child of the test below.
    #[test]
    #[ignore = "run by the test of affinity"]
    fn said() {
        println!("cores {:?}, fewer {:?}", cores(), fewer_than_the_machine_has());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_affinity_mask_counts() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        let first = allowed.split([',', '-']).next().unwrap();
        let here = std::env::current_exe().unwrap();
        let child = ["--exact", "cores::tests::said", "--ignored", "--nocapture"];
        let Ok(output) = std::process::Command::new("taskset").args(["-c", first]).arg(here).args(child).output()
        else {
            println!("skipping: there is no `taskset`");
            return;
        };
        let said = String::from_utf8(output.stdout).unwrap();
        let machine = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
        let fewer = if count(machine.trim()) == Some(1) { "None" } else { "Some(1)" };
        assert!(said.contains(&format!("cores Some(1), fewer {fewer}")), "{said}");
    }
}
