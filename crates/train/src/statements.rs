//! Sentences about quality. Each is a variant of an enum that the macro
//! [`statements!`](macro@crate::statements) declares together with what it rests on, so that none
//! can be printed without an entry in `docs/claims.md`.

/// What a sentence rests on: a row of `docs/claims.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The variant that says it.
    pub id: &'static str,
    /// When it is said.
    pub said_when: &'static str,
    /// The test, bound or measurement behind it.
    pub rests_on: &'static str,
    /// The test that fails where the sentence is said wrongly: crate, target of cargo, path.
    pub test: &'static str,
}

/// Declares an enum of sentences. The documentation of a variant is when it is said; what follows
/// in brackets is what it rests on and the test that would fail if it were false. Variants under
/// `made of them` only put other sentences together. The text of all is the enum's `Display`;
/// serialised, a sentence is its text.
#[macro_export]
macro_rules! statements {
    (
        $(#[$of_enum:meta])*
        pub enum $name:ident {
            $(
                $(#[doc = $when:literal])+
                [$rests_on:literal, $test:literal]
                $variant:ident $({ $($field:ident: $of:ty),+ $(,)? })?,
            )+
        }
        made of them {
            $( $(#[doc = $of_part:literal])+ $part:ident($holds:ty), )*
        }
    ) => {
        $(#[$of_enum])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // a field is what its name says
        pub enum $name {
            $( $(#[doc = $when])+ $variant $({ $($field: $of),+ })?, )+
            $( $(#[doc = $of_part])+ $part($holds), )*
        }

        impl $name {
            /// What each sentence rests on.
            pub const ENTRIES: &'static [$crate::statements::Entry] = &[$(
                $crate::statements::Entry {
                    id: stringify!($variant),
                    said_when: concat!($($when),+),
                    rests_on: $rests_on,
                    test: $test,
                },
            )+];
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}
