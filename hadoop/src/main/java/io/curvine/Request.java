package io.curvine;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** A call and its arguments, in the order in which the native library reads them. */
final class Request {
  private final ByteArrayOutputStream bytes = new ByteArrayOutputStream(96);
  private final DataOutputStream out = new DataOutputStream(bytes);

  private interface Step {
    void write() throws IOException;
  }

  Request(Call call) {
    put(() -> out.writeByte(call.code));
  }

  private Request put(Step step) {
    try {
      step.write();
    } catch (IOException error) {
      throw new UncheckedIOException("memory cannot fail", error);
    }
    return this;
  }

  Request number(long value) {
    return put(() -> out.writeLong(value));
  }

  Request integer(int value) {
    return put(() -> out.writeInt(value));
  }

  Request small(int value) {
    return put(() -> out.writeByte(value));
  }

  Request flag(boolean value) {
    return put(() -> out.writeBoolean(value));
  }

  Request data(byte[] value) {
    return put(() -> {
      out.writeInt(value.length);
      out.write(value);
    });
  }

  /** Null is sent as the empty text. */
  Request text(String value) {
    return data(value == null ? new byte[0] : value.getBytes(StandardCharsets.UTF_8));
  }

  byte[] bytes() {
    return bytes.toByteArray();
  }

  Reply make() throws IOException {
    return Native.make(this, null);
  }

  Reply make(ByteBuffer buffer) throws IOException {
    return Native.make(this, buffer);
  }

  /** As {@link #make()}, for who has no other exception for an error than users of Hadoop expect. */
  Reply ask() throws IOException {
    return ask(null);
  }

  Reply ask(ByteBuffer buffer) throws IOException {
    try {
      return make(buffer);
    } catch (CurvineException error) {
      throw error.expected();
    }
  }
}
