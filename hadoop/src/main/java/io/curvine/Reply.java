package io.curvine;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** What the native library answered: results in their order. */
final class Reply {
  private final ByteBuffer in;

  /** @throws CurvineException if the answer is an error */
  Reply(byte[] bytes) throws IOException {
    in = ByteBuffer.wrap(bytes);
    if (in.get() != 0) {
      throw new CurvineException(text(), text(), text());
    }
  }

  boolean flag() {
    return in.get() != 0;
  }

  int small() {
    return in.get() & 0xff;
  }

  int integer() {
    return in.getInt();
  }

  long number() {
    return in.getLong();
  }

  byte[] data() {
    byte[] data = new byte[in.getInt()];
    in.get(data);
    return data;
  }

  String text() {
    return new String(data(), StandardCharsets.UTF_8);
  }
}
