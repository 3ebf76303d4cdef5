import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;

/**
 * The same work on several file systems of Hadoop in one JVM, in turns.
 *
 * <p>Arguments: MiB of the large file, files of the small ones, rounds, then NAME=URI of a directory for each file system.
 * Prints {@code WORK NAME VALUE UNIT} for each, the median of the rounds.
 */
public final class Bench {
  private static final int MIB = 1 << 20;
  private static final int SMALL_READ = 4 << 10;
  private static final int SMALL_READS = 20_000;
  private static final int VECTORS = 200;
  private static final int RANGES = 16;
  private static final int RANGE_BYTES = 64 << 10;
  private static final int[] THREADS = {10, 40};

  private final Map<String, List<Double>> results = new LinkedHashMap<>();
  private final int mib;
  private final int files;

  private Bench(int mib, int files) {
    this.mib = mib;
    this.files = files;
  }

  public static void main(String[] words) throws Exception {
    Bench bench = new Bench(Integer.parseInt(words[0]), Integer.parseInt(words[1]));
    int rounds = Integer.parseInt(words[2]);
    List<String> systems = new ArrayList<>(Arrays.asList(words).subList(3, words.length));
    // What the compiler has not seen yet is slow for whoever comes first.
    for (String system : systems) {
      new Bench(Math.min(64, bench.mib), Math.min(500, bench.files)).measure(system);
    }
    for (int round = 0; round < rounds; round++) {
      for (String system : systems) {
        bench.measure(system);
      }
      Collections.rotate(systems, 1);
    }
    bench.results.forEach((what, values) -> {
      Collections.sort(values);
      System.out.printf(Locale.ROOT, "%s %.1f%n", what, values.get(values.size() / 2));
    });
  }

  private void add(String what, String name, double value) {
    results.computeIfAbsent(what + " " + name, key -> new ArrayList<>()).add(value);
  }

  private static double seconds(long since) {
    return (System.nanoTime() - since) / 1e9;
  }

  private void measure(String system) throws Exception {
    String name = system.substring(0, system.indexOf('='));
    Path root = new Path(system.substring(system.indexOf('=') + 1));
    FileSystem fs = FileSystem.newInstance(URI.create(root.toString()), new Configuration());
    fs.delete(root, true);
    fs.mkdirs(root);
    large(name, fs, new Path(root, "large"));
    for (int threads : THREADS) {
      small(name, fs, new Path(root, "small-" + threads), threads);
    }
    fs.delete(root, true);
    fs.close();
  }

  private void large(String name, FileSystem fs, Path file) throws Exception {
    byte[] buffer = new byte[MIB];
    Random random = new Random(7);
    long since = System.nanoTime();
    try (OutputStream out = fs.create(file, true)) {
      for (int i = 0; i < mib; i++) {
        // Every MiB is another one, and little time goes into making it.
        buffer[0] = (byte) i;
        buffer[i % MIB] = (byte) (i >> 8);
        out.write(buffer);
      }
    }
    add("write", name, mib / seconds(since));
    since = System.nanoTime();
    long read = 0;
    try (InputStream in = fs.open(file)) {
      for (int got = in.read(buffer); got >= 0; got = in.read(buffer)) {
        read += got;
      }
    }
    add("read", name, mib / seconds(since));
    check(read == (long) mib * MIB, "a read of the whole file");
    try (FSDataInputStream in = fs.open(file)) {
      byte[] little = new byte[SMALL_READ];
      since = System.nanoTime();
      for (int i = 0; i < SMALL_READS; i++) {
        in.readFully((long) random.nextInt(mib * (MIB / SMALL_READ)) * SMALL_READ, little);
      }
      add("pread-4k", name, SMALL_READS / seconds(since));
      since = System.nanoTime();
      for (int i = 0; i < VECTORS; i++) {
        List<FileRange> ranges = new ArrayList<>();
        long place = (long) random.nextInt(mib - 4) * MIB;
        for (int range = 0; range < RANGES; range++) {
          ranges.add(FileRange.createFileRange(place + range * 3L * RANGE_BYTES, RANGE_BYTES));
        }
        in.readVectored(ranges, ByteBuffer::allocate);
        for (FileRange range : ranges) {
          check(range.getData().get().remaining() == RANGE_BYTES, "a range of a vectored read");
        }
      }
      add("vectored", name, (double) VECTORS * RANGES * RANGE_BYTES / MIB / seconds(since));
    }
  }

  private interface Step {
    void at(int number) throws IOException;
  }

  private void small(String name, FileSystem fs, Path directory, int threads) throws Exception {
    for (int thread = 0; thread < threads; thread++) {
      fs.mkdirs(new Path(directory, "d" + thread));
    }
    ExecutorService pool = Executors.newFixedThreadPool(threads);
    Step create = number -> fs.create(at(directory, number, threads), true).close();
    Step open = number -> {
      try (FSDataInputStream in = fs.open(at(directory, number, threads))) {
        check(in.read() < 0, "an empty file");
      }
    };
    Step rename = number -> {
      Path from = at(directory, number, threads);
      check(fs.rename(from, from.suffix("-renamed")), "a rename");
    };
    Step delete = number -> check(fs.delete(at(directory, number, threads).suffix("-renamed"), false), "a deletion");
    time(pool, "create-" + threads, name, threads, create);
    time(pool, "open-" + threads, name, threads, open);
    time(pool, "rename-" + threads, name, threads, rename);
    time(pool, "delete-" + threads, name, threads, delete);
    pool.shutdown();
  }

  private static Path at(Path directory, int number, int threads) {
    return new Path(directory, "d" + number % threads + "/f" + number);
  }

  private void time(ExecutorService pool, String what, String name, int threads, Step step) throws Exception {
    List<Callable<Void>> work = new ArrayList<>();
    for (int thread = 0; thread < threads; thread++) {
      int first = thread;
      work.add(() -> {
        for (int number = first; number < files; number += threads) {
          step.at(number);
        }
        return null;
      });
    }
    long since = System.nanoTime();
    for (Future<Void> done : pool.invokeAll(work)) {
      done.get();
    }
    add(what, name, files / seconds(since));
  }

  private static void check(boolean holds, String what) {
    if (!holds) {
      throw new IllegalStateException(what + " went wrong");
    }
  }
}
