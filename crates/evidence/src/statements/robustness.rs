//! What is said of models under stress.

use std::fmt;

use crate::units;

halfstep_train::statements! {
    /// What `stress` says.
    pub enum RobustnessStatement {
        /// No change of precision changes 1 % of the answers of the same weights.
        ["Answers of the same weights on the test samples.",
         "evidence it robustness_claims::weights_in_another_precision_are_said_to_change_what_they_change"]
        ServedAlike { share: f64, trained: String, served: String },
        /// One changes 1 % or more.
        ["The same answers.",
         "evidence it robustness_claims::weights_in_another_precision_are_said_to_change_what_they_change"]
        ServedOtherwise { share: f64, made_wrong: f64, trained: String, served: String },
        /// Groups fail after Holm's adjustment over all groups and differences.
        ["The tests of a verdict by group.",
         "evidence it robustness_claims::a_group_is_called_worse_or_as_good_by_its_test"]
        WorseForGroups { candidate: String, baseline: String, groups: Vec<String> },
        /// No group can be judged.
        ["The least size that can pass.",
         "evidence it robustness_claims::a_group_is_called_worse_or_as_good_by_its_test"]
        NoGroupLargeEnough { candidate: String },
        /// No group fails; how many pass.
        ["The tests of a verdict by group.",
         "evidence it robustness_claims::a_group_is_called_worse_or_as_good_by_its_test"]
        AsGoodInGroups { candidate: String, baseline: String, passed: usize, judged: usize },
        /// Weights were stored in smaller formats: each model is judged by its examples, and all
        /// must pass.
        ["The exact test of changed answers of each model at each margin.",
         "evidence lib answers::tests::at_the_margin_it_is_wrong_in_at_most_five_per_cent"]
        StoredSmaller { trained: String, as_good: Vec<String>, worse: Vec<String>, open: Vec<String> },
        /// A difference over seeds holds after Holm's adjustment.
        ["A paired t-test over seeds, adjusted over all groups and differences.",
         "evidence lib robustness_findings::tests::where_nothing_differs_a_difference_is_seldom_said"]
        Differs {
            precision: String, does: &'static str, better: bool, baseline: String, measure: String, by: f64, p: f64,
            comparisons: usize,
        },
        /// No difference of this kind does.
        ["The same test: that it is not significant.",
         "evidence lib robustness_findings::tests::a_difference_that_is_there_is_said_with_its_family"]
        NoneDiffers { does: &'static str, baseline: String, comparisons: usize },
        /// In its own precision 1 % more images have no gradient than in f32.
        ["Gradients of the loss by pixel, counted.",
         "evidence it robustness_claims::what_gradients_do_not_show_is_said"]
        BlindGradients { precision: String, own: f64, wide: f64 },
        /// A black-box attack takes 2 points more than those with gradients.
        ["Accuracy under each attack on the same images.",
         "evidence it robustness_claims::what_gradients_do_not_show_is_said"]
        GradientsFindLess { precision: String, black_box: f64, by_gradients: f64 },
        /// A trigger succeeds 5 points oftener with the same weights in another precision.
        ["Answers on images with the trigger, counted.",
         "evidence lib robustness_findings::tests::a_trigger_wakes_with_the_same_weights_only"]
        TriggerWakes { what: &'static str, base: f64, served: String, most: f64, most_served: String },
        /// It does not.
        ["The same answers.", "evidence lib robustness_findings::tests::a_trigger_wakes_with_the_same_weights_only"]
        TriggerSucceeds { what: &'static str, base: f64, served: String, most: f64 },
        /// There is no model to try it on.
        ["The list of models.", "evidence it robustness_claims::a_planted_backdoor_has_its_counts"]
        TriggerNotTried { what: &'static str },
        /// Suspects were removed and the model trained again.
        ["Answers and counts before and after.",
         "evidence it robustness_claims::a_planted_backdoor_has_its_counts"]
        SuspectsRemoved {
            removed: u64, removed_poisoned: u64, poisoned: u64, most_after: f64, accuracy_change: f64, seconds: f64,
        },
        /// A measure means nothing for these data.
        ["The kind of the data.", "evidence it robustness_claims::a_planted_backdoor_has_its_counts"]
        NotApplicable { measure: &'static str, reason: String },
    }
    made of them {}
}

fn share(x: f64) -> String {
    units::percent(x, None)
}

impl fmt::Display for RobustnessStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use RobustnessStatement::*;
        match self {
            ServedAlike { share: flips, trained, served } => write!(
                f,
                "Computing the same weights in another precision changes at most {} of the answers ({trained} weights in \
                 {served}).",
                share(*flips)
            ),
            ServedOtherwise { share: flips, made_wrong, trained, served } => write!(
                f,
                "Weights trained in {trained} and computed in {served} change {} of the answers ({} of them right ones made \
                 wrong): serve them in the precision they were judged in.",
                share(*flips),
                share(*made_wrong)
            ),
            WorseForGroups { candidate, baseline, groups } => {
                write!(f, "{candidate} is worse than {baseline} for {}.", groups.join(", "))
            }
            NoGroupLargeEnough { candidate } => {
                write!(f, "No group is large enough to judge {candidate} by.")
            }
            AsGoodInGroups { candidate, baseline, passed, judged } => write!(
                f,
                "{candidate} is shown to be as good as {baseline} in {passed} of {judged} groups, and to be worse in none."
            ),
            StoredSmaller { trained, as_good, worse, open } => {
                let parts = [(as_good, "as good as f32"), (worse, "worse"), (open, "not decided")];
                let said = parts.into_iter().filter(|(formats, _)| !formats.is_empty());
                let said: Vec<String> =
                    said.map(|(formats, what)| format!("{} {what}", formats.join(", "))).collect();
                write!(f, "Weights of {trained} stored smaller: {}.", said.join("; "))
            }
            Differs { precision, does, better, baseline, measure, by, p, comparisons } => write!(
                f,
                "{precision} {does} {} than {baseline}: {measure} {} (p = {p:.3}, Holm over {comparisons} comparisons).",
                if *better { "better" } else { "worse" },
                units::points(*by)
            ),
            NoneDiffers { does, baseline, comparisons } => write!(
                f,
                "No precision {does} other than {baseline} beyond the spread over seeds (Holm over {comparisons} \
                 comparisons)."
            ),
            BlindGradients { precision, own, wide } => write!(
                f,
                "In {precision} itself {} of the images have no gradient, in f32 {}: an attack in {precision} would report \
                 robustness that is not there.",
                share(*own),
                share(*wide)
            ),
            GradientsFindLess { precision, black_box, by_gradients } => write!(
                f,
                "The black-box attack on {precision} leaves {}, those with gradients {}: its gradients are masked.",
                share(*black_box),
                share(*by_gradients)
            ),
            TriggerWakes { what, base, served, most, most_served } => write!(
                f,
                "{what} wakes: it succeeds on {} of the images in {served}, and on {} with the same weights in \
                 {most_served}.",
                share(*base),
                share(*most)
            ),
            TriggerSucceeds { what, base, served, most } => write!(
                f,
                "{what} succeeds on {} of the images in {served}, and on at most {} with the same weights in any other \
                 precision.",
                share(*base),
                share(*most)
            ),
            TriggerNotTried { what } => write!(f, "{what} was not tried."),
            SuspectsRemoved { removed, removed_poisoned, poisoned, most_after, accuracy_change, seconds } => {
                write!(
                    f,
                    "Removing {} suspects ({} of the {} poisoned) and training again lowers it to at most {} and changes \
                     accuracy by {}; it costs {}.",
                    units::count(*removed),
                    units::count(*removed_poisoned),
                    units::count(*poisoned),
                    share(*most_after),
                    units::points(*accuracy_change),
                    units::seconds(*seconds)
                )
            }
            NotApplicable { measure, reason } => write!(f, "Not applicable: {measure}, for {reason}."),
        }
    }
}
