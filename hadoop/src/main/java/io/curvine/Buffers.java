package io.curvine;

import java.nio.ByteBuffer;
import java.util.ArrayDeque;

/** Direct buffers that streams have given back, for the next ones: the JVM is slow to make and to free them. */
final class Buffers {
  static final int BYTES = 1 << 20;
  /** What a thread has for itself, for positioned reads of no more. */
  static final int SMALL_BYTES = 64 << 10;
  private static final int KEPT = 16;
  private static final ArrayDeque<ByteBuffer> FREE = new ArrayDeque<>();

  private static final ThreadLocal<ByteBuffer> SMALL =
      ThreadLocal.withInitial(() -> ByteBuffer.allocateDirect(SMALL_BYTES));

  private Buffers() {
  }

  /** The current thread's own, of {@link #SMALL_BYTES}. */
  static ByteBuffer small() {
    ByteBuffer small = SMALL.get();
    small.clear();
    return small;
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
