//! Core errors as Ruby exceptions: one class for each code, declared in `lib/pushy/error.rb`.

use magnus::value::ReprValue;
use magnus::{Class, Exception, ExceptionClass, Module, RModule, Ruby};
use pushy_core::watch::Exit;
use pushy_core::{Error, ErrorCode};

/// The exception class of each code, below `Pushy`.
fn class_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidArgument => "InvalidArgumentError",
        ErrorCode::InvalidName => "InvalidNameError",
        ErrorCode::InvalidKey => "InvalidKeyError",
        ErrorCode::BadSignature => "BadSignatureError",
        ErrorCode::ClockSkew => "ClockSkewError",
        ErrorCode::TooLarge => "TooLargeError",
        ErrorCode::Malformed => "MalformedError",
        ErrorCode::InvalidConfig => "InvalidConfigError",
        ErrorCode::InvalidWhitelist => "InvalidWhitelistError",
        ErrorCode::NotWhitelisted => "NotWhitelistedError",
        ErrorCode::NotFound => "NotFoundError",
        ErrorCode::Forbidden => "ForbiddenError",
        ErrorCode::Unauthorized => "UnauthorizedError",
        ErrorCode::Connection => "ConnectionError",
        ErrorCode::Timeout => "TimeoutError",
        ErrorCode::Server => "ServerError",
        ErrorCode::Interrupted => "InterruptedError",
        ErrorCode::Protocol => "ProtocolError",
        ErrorCode::InvalidState => "InvalidStateError",
        ErrorCode::Storage => "StorageError",
        ErrorCode::Io => "FileError",
        ErrorCode::Internal => "InternalError",
        // The enum is open to codes added later; the spec of errors fails until they have a class.
        _ => "Error",
    }
}

/// The exception for `error`, with its code as `#code` and what a program should end with as `#exit_code`.
pub(crate) fn raise(ruby: &Ruby, error: &Error) -> magnus::Error {
    let built = || -> Result<Exception, magnus::Error> {
        let module: RModule = ruby.class_object().const_get("Pushy")?;
        let class: ExceptionClass = module.const_get(class_name(error.code()))?;
        let exception: Exception = class.new_instance((error.message(),))?;
        exception
            .funcall::<_, _, magnus::Value>("instance_variable_set", ("@code", error.code().number()))?;
        let exit = Exit::of_error(error).code();
        exception.funcall::<_, _, magnus::Value>("instance_variable_set", ("@exit_code", exit))?;
        Ok(exception)
    };
    match built() {
        Ok(exception) => exception.into(),
        Err(failure) => failure,
    }
}

/// The exception for a defect of this program.
pub(crate) fn internal(ruby: &Ruby, text: &str) -> magnus::Error {
    raise(ruby, &Error::new(ErrorCode::Internal, format!("internal error, please report it: {text}")))
}
