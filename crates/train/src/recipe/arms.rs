//! The arms of an ablation: the rest of the recipe, with sections of their own in it.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use halfstep_data::{nearest, printable};
use halfstep_graph::precision::Policy;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::RecipeError;
use super::name::{folder_name, is_name};
use super::read::{check_names, meant, read};
use super::source::RecipeText;
use super::{Arm, OF_AN_ARM, Recipe};

/// Reads a recipe with the arms of its ablation. Paths in it stay as they are written.
pub(super) fn parse(name: &str, text: &str, base: &Path) -> Result<Recipe, RecipeError> {
    let mut source = RecipeText::new(name, text);
    let parsed = DeTable::parse(text).map_err(|e| {
        let span = e.span().unwrap_or(0..0);
        source.own(RecipeError::new(format!("not valid TOML: {}", e.message())).at(span, "here"))
    })?;
    source.record("", parsed.get_ref());
    let whole = |mut root| {
        check_names(&root)?;
        let ablation = ablation(&mut root, &source, base)?;
        Ok(Recipe { ablation, ..read(root, &source, base)? })
    };
    whole(parsed.into_inner()).map_err(|e: RecipeError| if e.span().is_some() { source.own(e) } else { e })
}

/// Takes out the arms of an ablation, and reads each as the rest of the recipe with its own
/// sections in it.
fn ablation(root: &mut DeTable<'_>, source: &RecipeText, base: &Path) -> Result<Vec<Arm>, RecipeError> {
    let Some(value) = root.remove("ablation") else {
        return Ok(Vec::new());
    };
    let span = value.span();
    let expected = "expected [[ablation]] on a line of its own, with a name and the arm's own sections";
    let wrong = |message: String, span: Range<usize>, label: &str| {
        Err(source.own(RecipeError::new(message).at(span, label)))
    };
    let DeValue::Array(arms) = value.into_inner() else {
        return wrong("`ablation` is not a list of arms".into(), span, expected);
    };
    let mut read_arms: Vec<Arm> = Vec::new();
    for arm in arms {
        let span = arm.span();
        let DeValue::Table(mut arm) = arm.into_inner() else {
            return wrong("an arm of `ablation` is not a section".into(), span, expected);
        };
        let Some(name) = arm.remove("name") else {
            return wrong("an arm of the ablation has no `name`".into(), span, "add name = \"…\"");
        };
        let at = name.span();
        let name = name.get_ref().as_str().unwrap_or_default().to_string();
        if !is_name(&name) {
            let message = format!("the name `{}` of an arm cannot name a folder", printable(&name));
            return wrong(message, at, "expected a name in one line, without `/` and `\\`");
        }
        if read_arms.iter().any(|a| folder_name(&a.name) == folder_name(&name)) {
            return wrong(format!("two arms are named `{name}`"), at, "expected a name of its own");
        }
        let mut whole = root.clone();
        let mut places = source.clone();
        for (key, value) in arm.iter() {
            let section: &str = key.get_ref();
            if section == "precision" {
                precision_of_arm(&mut whole, &mut places, key, value).map_err(|e| source.own(e))?;
                continue;
            }
            if !OF_AN_ARM.contains(&section) {
                let known = || OF_AN_ARM.into_iter().chain(["precision"]);
                let list = known().collect::<Vec<_>>().join(", ");
                let error = RecipeError::new(format!("an arm cannot have a `{section}` of its own"));
                let error = error.at(key.span(), format!("expected one of name, {list}"));
                return Err(source.own(error.help(meant(nearest(section, known())))));
            }
            places.forget(section);
            whole.insert(key.clone(), value.clone());
        }
        places.record("", &arm);
        let named = Spanned::new(at.clone(), Cow::Borrowed("name"));
        whole.insert(named, Spanned::new(at, DeValue::String(Cow::Owned(name.clone()))));
        let recipe = read(whole, &places, base).map_err(|e| places.own(e))?;
        read_arms.push(Arm { name, recipe });
    }
    Ok(read_arms)
}

/// Puts the settings that an arm has of a policy, as `[ablation.precision.bf16]`, in place of the
/// recipe's. Which policies are compared, and what is excepted from them, is the same in all arms.
fn precision_of_arm<'i>(
    whole: &mut DeTable<'i>,
    places: &mut RecipeText,
    key: &Spanned<Cow<'i, str>>,
    value: &Spanned<DeValue<'i>>,
) -> Result<(), RecipeError> {
    let of_arm = value.get_ref().as_table();
    let of_arm = of_arm.ok_or_else(|| {
        let error = RecipeError::new("`precision` of an arm is not a section");
        error.at(value.span(), "expected [ablation.precision.bf16] or its like on a line of its own")
    })?;
    let (key, inner) = whole
        .remove_entry("precision")
        .unwrap_or_else(|| (key.clone(), Spanned::new(value.span(), DeValue::Table(DeTable::new()))));
    let span = inner.span();
    let mut table = match inner.into_inner() {
        DeValue::Table(table) => table,
        _ => DeTable::new(),
    };
    for (policy, settings) in of_arm.iter() {
        let named: &str = policy.get_ref();
        if !Policy::NAMES.contains(&named) {
            let error = RecipeError::new(format!("an arm cannot have a `{named}` of [precision] of its own"));
            let label = format!("expected the settings of one of {}", Policy::NAMES.join(", "));
            return Err(error.at(policy.span(), label).help(meant(nearest(named, Policy::NAMES))));
        }
        places.forget(&format!("precision.{named}"));
        table.insert(policy.clone(), settings.clone());
    }
    whole.insert(key, Spanned::new(span, DeValue::Table(table)));
    Ok(())
}
