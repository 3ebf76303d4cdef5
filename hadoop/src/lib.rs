//! The native library of the Hadoop `FileSystem`: the Rust client, for a JVM.
//!
//! Java knows one native method. It sends a request as bytes, and for reads and writes a direct buffer beside it; the
//! answer is bytes again ([`wire`] says how they are encoded). So nothing of Java's classes is looked up here, nothing is
//! thrown from here, and one test can compare the calls of both sides ([`calls`]).
//!
//! Invariants: no panic reaches the JVM; a handle that Java no longer has is refused, never followed.

mod acls;
mod calls;
mod checksum;
mod library;
mod users;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};

use curvine_protocol::Error;
use jni::EnvUnowned;
use jni::errors::ThrowRuntimeExAndDefault;
use jni::objects::{JByteArray, JByteBuffer, JClass};

/// `io.curvine.Native.call`: carries out a request; `buffer` is null, or direct.
#[unsafe(no_mangle)]
pub extern "system" fn Java_io_curvine_Native_call<'caller>(
    mut env: EnvUnowned<'caller>,
    _class: JClass<'caller>,
    request: JByteArray<'caller>,
    buffer: JByteBuffer<'caller>,
) -> JByteArray<'caller> {
    env.with_env(|env| -> Result<_, jni::errors::Error> {
        let request = env.convert_byte_array(&request)?;
        let room = match buffer.is_null() {
            true => &mut [][..],
            false => {
                let address = env.get_direct_buffer_address(&buffer)?;
                let length = env.get_direct_buffer_capacity(&buffer)?;
                // SAFETY: the JVM says that these bytes are the buffer's; the caller's reference keeps it alive, and whoever
                // owns it has one call at a time use it.
                unsafe { std::slice::from_raw_parts_mut(address, length) }
            }
        };
        env.byte_array_from_slice(&answer(&request, room))
    })
    .resolve::<ThrowRuntimeExAndDefault>()
}

fn answer(request: &[u8], room: &mut [u8]) -> Vec<u8> {
    let outcome = catch_unwind(AssertUnwindSafe(|| calls::answer(request, room)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<&str>()
            .map(|said| (*said).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        let said = said.unwrap_or_else(|| "a panic without words".to_owned());
        Err(Error::internal(format!(
            "a defect in the native library of Curvine: {said}; please report it"
        )))
    });
    wire::reply(outcome)
}
