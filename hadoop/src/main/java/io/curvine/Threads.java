package io.curvine;

import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** Threads of the process that read for its streams. They end when there is nothing to do, and keep no JVM from ending. */
final class Threads {
  private static final int MOST = 8;
  private static final int WAITING_MOST = 64;
  private static final long IDLE_SECONDS = 5;
  private static final ThreadPoolExecutor POOL = pool();

  private Threads() {
  }

  private static ThreadPoolExecutor pool() {
    AtomicInteger number = new AtomicInteger();
    ThreadPoolExecutor pool = new ThreadPoolExecutor(
        MOST, MOST, IDLE_SECONDS, TimeUnit.SECONDS, new LinkedBlockingQueue<>(WAITING_MOST), work -> {
          Thread thread = new Thread(work, "curvine-read-" + number.incrementAndGet());
          thread.setDaemon(true);
          return thread;
        });
    pool.allowCoreThreadTimeOut(true);
    return pool;
  }

  /** Has a thread do it; the caller's, if all others are busy and enough is waiting for them. */
  static void run(Runnable work) {
    if (!runs(work)) {
      work.run();
    }
  }

  /** Has another thread do it, unless all are busy and enough is waiting for them. Says whether one does. */
  static boolean runs(Runnable work) {
    try {
      POOL.execute(work);
      return true;
    } catch (RejectedExecutionException busy) {
      return false;
    }
  }
}
