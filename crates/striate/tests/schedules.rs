//! Every schedule against PyTorch's (`tests/reference/schedules.py`).

use serde::Deserialize;
use striate::optim::Schedule;

#[derive(Deserialize)]
struct Reference {
    total: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    schedule: String,
    rates: Vec<f64>,
}

#[test]
fn schedules_agree_with_the_reference() {
    let reference: Reference = serde_json::from_str(include_str!("reference/schedules.json")).unwrap();
    for name in Schedule::NAMES {
        assert!(reference.cases.iter().any(|case| case.schedule.starts_with(name)), "no recorded values for {name}");
    }
    for Case { schedule, rates } in reference.cases {
        let parsed: Schedule = schedule.parse().unwrap();
        assert_eq!(rates.len() as u64, reference.total);
        for (step, expected) in (0..).zip(rates) {
            let found = f64::from(parsed.rate(step, reference.total));
            assert!((found - expected).abs() < 1e-6, "{schedule}, step {step}: {found} is not {expected}");
        }
    }
}
