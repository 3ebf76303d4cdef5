package io.curvine;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

/** A buffer that is being filled with what comes next in a file. */
final class Ahead {
  /** Where in the file it begins. */
  final long start;
  private final ByteBuffer buffer = Buffers.take();
  /** How much is in it. */
  private final CompletableFuture<Integer> filled = new CompletableFuture<>();

  /** Reads into a buffer from its beginning on: how much. */
  interface Fill {
    int into(ByteBuffer buffer) throws IOException;
  }

  private Ahead(long start) {
    this.start = start;
  }

  /** Begins to fill one, which begins there in the file; null if no thread is free for it. */
  static Ahead begin(long start, Fill fill) {
    Ahead ahead = new Ahead(start);
    boolean begun = Threads.runs(() -> {
      try {
        ahead.filled.complete(fill.into(ahead.buffer));
      } catch (IOException | RuntimeException error) {
        ahead.filled.completeExceptionally(error);
      }
    });
    if (!begun) {
      Buffers.give(ahead.buffer);
    }
    return begun ? ahead : null;
  }

  /** The buffer, when it is filled; null if there is nothing in it, for whatever reason. Then it is to be dropped. */
  ByteBuffer take() {
    try {
      int got = filled.join();
      if (got == 0) {
        return null;
      }
      buffer.limit(got);
      return buffer;
    } catch (CompletionException | CancellationException error) {
      // Whoever reads there hears of it.
      return null;
    }
  }

  /** It is not wanted: its buffer goes back when nobody fills it any more. */
  void drop() {
    filled.whenComplete((got, error) -> Buffers.give(buffer));
  }
}
