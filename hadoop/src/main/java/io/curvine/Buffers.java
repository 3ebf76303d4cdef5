package io.curvine;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;

/** Direct buffers that streams have given back, for the next ones: the JVM is slow to make and to free them. */
final class Buffers {
  static final int BYTES = 1 << 20;
  private static final int KEPT = 16;
  private static final ArrayDeque<ByteBuffer> FREE = new ArrayDeque<>();

  private Buffers() {
  }

  static ByteBuffer take() {
    ByteBuffer free;
    synchronized (FREE) {
      free = FREE.poll();
    }
    return free == null ? ByteBuffer.allocateDirect(BYTES) : free;
  }

  static void give(ByteBuffer buffer) {
    buffer.clear();
    synchronized (FREE) {
      if (FREE.size() < KEPT) {
        FREE.push(buffer);
      }
    }
  }
}
