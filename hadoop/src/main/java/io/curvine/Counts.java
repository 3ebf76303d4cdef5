package io.curvine;

import java.util.function.Consumer;
import org.apache.hadoop.fs.statistics.IOStatistics;
import org.apache.hadoop.fs.statistics.IOStatisticsContext;
import org.apache.hadoop.fs.statistics.StoreStatisticNames;
import org.apache.hadoop.fs.statistics.StreamStatisticNames;
import org.apache.hadoop.fs.statistics.impl.IOStatisticsBinding;
import org.apache.hadoop.fs.statistics.impl.IOStatisticsStore;

/** What is counted for {@code IOStatistics}, and where it goes. */
final class Counts {
  private static final String[] READS = {
    StreamStatisticNames.STREAM_READ_BYTES,
    StreamStatisticNames.STREAM_READ_OPERATIONS,
    StreamStatisticNames.STREAM_READ_SEEK_OPERATIONS,
  };
  private static final String[] WRITES = {
    StreamStatisticNames.STREAM_WRITE_BYTES, StoreStatisticNames.OP_HFLUSH, StoreStatisticNames.OP_HSYNC,
  };
  private static final String[] OPERATIONS = {
    StoreStatisticNames.OP_APPEND,
    StoreStatisticNames.OP_CREATE,
    StoreStatisticNames.OP_DELETE,
    StoreStatisticNames.OP_GET_CONTENT_SUMMARY,
    StoreStatisticNames.OP_GET_FILE_CHECKSUM,
    StoreStatisticNames.OP_GET_FILE_STATUS,
    StoreStatisticNames.OP_LIST_STATUS,
    StoreStatisticNames.OP_MKDIRS,
    StoreStatisticNames.OP_OPEN,
    StoreStatisticNames.OP_RENAME,
    StoreStatisticNames.OP_SET_OWNER,
    StoreStatisticNames.OP_SET_PERMISSION,
    StoreStatisticNames.OP_SET_TIMES,
    StoreStatisticNames.OP_TRUNCATE,
    StoreStatisticNames.OP_XATTR_GET_NAMED,
    StoreStatisticNames.OP_XATTR_LIST,
  };

  private Counts() {
  }

  /** Those of a file system: its operations, and what its closed streams have counted. */
  static IOStatisticsStore ofFileSystem() {
    return IOStatisticsBinding.iostatisticsStore()
        .withCounters(OPERATIONS).withCounters(READS).withCounters(WRITES).build();
  }

  static IOStatisticsStore ofInput() {
    return IOStatisticsBinding.iostatisticsStore().withCounters(READS).build();
  }

  static IOStatisticsStore ofOutput() {
    return IOStatisticsBinding.iostatisticsStore().withCounters(WRITES).build();
  }

  /** Where the counts of a stream go when it is closed: to its file system, and to the thread that opened it. */
  static Consumer<IOStatistics> gatheredBy(IOStatisticsStore fileSystem) {
    Consumer<IOStatistics> thread = thread();
    return counts -> {
      fileSystem.aggregate(counts);
      thread.accept(counts);
    };
  }

  private static Consumer<IOStatistics> thread() {
    try {
      return OfThread.gathers();
    } catch (NoClassDefFoundError before335) {
      return counts -> { };
    }
  }

  /** In a class of its own, for Hadoop before 3.3.5 does not count by threads. */
  private static final class OfThread {
    static Consumer<IOStatistics> gathers() {
      return IOStatisticsContext.getCurrentIOStatisticsContext().getAggregator()::aggregate;
    }
  }
}
