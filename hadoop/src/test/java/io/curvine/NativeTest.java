package io.curvine;

import static org.apache.hadoop.test.LambdaTestUtils.intercept;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import io.curvine.contract.CurvineContract;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Collections;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.junit.Test;

/** What native code must never do to a JVM. */
public class NativeTest {
  /** Libraries that are built for development panic when they are asked for this call. */
  private static final byte PANICS = (byte) 255;
  private static final int WARM_UP = 2_000;
  private static final int CYCLES = 8_000;
  private static final int THREADS = 4;

  @Test
  public void aPanicBecomesAnException() throws Exception {
    try (FileSystem fs = FileSystem.newInstance(CurvineContract.cluster(), new Configuration())) {
      for (int i = 0; i < 3; i++) {
        CurvineException said =
            intercept(CurvineException.class, () -> new Reply(Native.call(new byte[] {PANICS}, null)).flag());
        assertTrue(said.getMessage(), said.getMessage().contains("a defect in the native library of Curvine"));
        assertEquals(IOException.class, said.expected().getClass());
      }
      assertTrue("the library still works", fs.getFileStatus(new Path("/")).isDirectory());
    }
  }

  @Test
  public void openingAndClosingLeavesNothingBehind() throws Exception {
    Path path = new Path("/native-test");
    try (FileSystem fs = FileSystem.newInstance(CurvineContract.cluster(), new Configuration())) {
      try (FSDataOutputStream out = fs.create(path)) {
        out.write(42);
      }
      cycle(fs, path, WARM_UP);
      long[] before = held();
      cycle(fs, path, CYCLES);
      long[] after = held();
      fs.delete(path, false);
      // A thread or a connection may have come for work of the client's own; what stayed of each cycle would be thousands.
      assertTrue("threads: " + before[0] + ", then " + after[0], after[0] <= before[0] + 8);
      assertTrue("descriptors: " + before[1] + ", then " + after[1], after[1] <= before[1] + 8);
      // 4 KiB a cycle, which is less than a buffer or an open file of the client has.
      assertTrue("KiB: " + before[2] + ", then " + after[2], after[2] <= before[2] + 4 * CYCLES);
    }
  }

  /** So many times on each of the threads, which are gone afterwards. */
  private static void cycle(FileSystem fs, Path path, int times) throws Exception {
    Callable<Void> some = () -> {
      for (int i = 0; i < times / THREADS; i++) {
        try (FSDataInputStream in = fs.open(path)) {
          if (i % 4 == 0) {
            assertEquals(42, in.read());
          }
        }
      }
      return null;
    };
    ExecutorService threads = Executors.newFixedThreadPool(THREADS);
    try {
      for (Future<Void> done : threads.invokeAll(Collections.nCopies(THREADS, some))) {
        done.get();
      }
    } finally {
      threads.shutdown();
      assertTrue(threads.awaitTermination(1, TimeUnit.MINUTES));
    }
  }

  /** Threads, descriptors, and KiB of memory that is neither a file's nor the heap's. */
  private static long[] held() throws IOException {
    System.gc();
    long memory = 0;
    for (String line : Files.readAllLines(Paths.get("/proc/self/status"))) {
      if (line.startsWith("RssAnon:")) {
        memory = Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    long heap = Runtime.getRuntime().totalMemory() >> 10;
    return new long[] {count("/proc/self/task"), count("/proc/self/fd"), memory - heap};
  }

  private static int count(String directory) {
    return new File(directory).list().length;
  }
}
