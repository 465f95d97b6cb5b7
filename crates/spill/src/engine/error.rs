//! Errors on their way through DataFusion and back: ours come out as they went in.

use aqueduct_core::{Error, ErrorKind};
use aqueduct_expr::ExprError;
use arrow::error::ArrowError;
use datafusion_common::DataFusionError;

/// One of ours inside a plan.
pub(crate) fn outside(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What a plan failed with, as one of ours.
pub(crate) fn inside(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(cause) => from_cause(cause),
        DataFusionError::Context(_, cause) | DataFusionError::Diagnostic(_, cause) => inside(*cause),
        DataFusionError::ArrowError(error, _) => from_arrow(*error),
        DataFusionError::IoError(error) => from_io(error),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => inside(first),
            None => Error::bug(OPERATION, "the plan failed and did not say why"),
        },
        DataFusionError::Shared(error) => match std::sync::Arc::try_unwrap(error) {
            Ok(error) => inside(error),
            Err(shared) => told(kind_of(&shared), &shared),
        },
        DataFusionError::ResourcesExhausted(_) => {
            let message = "an operator needs more memory than its share, and cannot spill it; raise `memory`";
            Error::new(ErrorKind::Limit, OPERATION, message).with("operator", text(&error))
        }
        other => told(kind_of(&other), &other),
    }
}

const OPERATION: &str = "run a plan";

fn told(kind: ErrorKind, error: &DataFusionError) -> Error {
    Error::new(kind, OPERATION, text(error))
}

/// In one line, without what DataFusion asks its own users to do.
fn text(error: &DataFusionError) -> String {
    ExprError::text_of(error)
}

fn kind_of(error: &DataFusionError) -> ErrorKind {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Limit,
        DataFusionError::Execution(_) | DataFusionError::ArrowError(..) => ErrorKind::Data,
        DataFusionError::NotImplemented(_)
        | DataFusionError::Plan(_)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_) => ErrorKind::Config,
        DataFusionError::IoError(_) => ErrorKind::Io,
        _ => ErrorKind::Bug,
    }
}

fn from_cause(cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match cause.downcast::<Error>() {
        Ok(own) => *own,
        Err(cause) => match cause.downcast::<DataFusionError>() {
            Ok(error) => inside(*error),
            Err(cause) => Error::bug(OPERATION, "an operator failed").with_source(cause),
        },
    }
}

fn from_arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(cause) => from_cause(cause),
        ArrowError::IoError(_, error) => from_io(error),
        other => Error::new(ErrorKind::Data, OPERATION, "a value cannot be computed").with_source(other),
    }
}

fn from_io(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::io("spill", "spill folder", error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn our_errors_come_back_as_they_went_in_however_they_were_wrapped() {
        let own = || outside(Error::new(ErrorKind::DiskFull, "spill", "no space left").with("path", "/x"));
        let io = std::io::Error::other(
            Error::new(ErrorKind::DiskFull, "spill", "no space left").with("path", "/x"),
        );
        let wrapped = [
            own(),
            own().context("while it merged"),
            DataFusionError::Shared(Arc::new(own())),
            DataFusionError::Collection(vec![own(), own()]),
            ArrowError::ExternalError(Box::new(own())).into(),
            DataFusionError::IoError(io),
        ];
        for error in wrapped {
            let back = inside(error);
            assert_eq!(back.kind(), ErrorKind::DiskFull);
            assert_eq!(back.to_string(), "spill: no space left (path: /x)");
        }
    }

    #[test]
    fn memory_that_is_not_there_is_a_limit_and_says_who_wanted_it() {
        let error = inside(DataFusionError::ResourcesExhausted("HashJoin needs 5 bytes".into()).context("x"));
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.chain().contains("HashJoin needs 5") && error.chain().contains("`memory`"), "{error}");
    }
}
