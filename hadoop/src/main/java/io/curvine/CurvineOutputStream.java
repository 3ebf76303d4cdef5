package io.curvine;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.fs.Syncable;
import org.apache.hadoop.fs.statistics.IOStatistics;
import org.apache.hadoop.fs.statistics.IOStatisticsSource;
import org.apache.hadoop.fs.statistics.StoreStatisticNames;
import org.apache.hadoop.fs.statistics.StreamStatisticNames;
import org.apache.hadoop.fs.statistics.impl.IOStatisticsStore;

/** Writes a file at its end, a direct buffer at a time. */
final class CurvineOutputStream extends OutputStream implements Syncable, StreamCapabilities, IOStatisticsSource {
  private final long file;
  private boolean closed;
  /** What was written and not sent; null if there is nothing. */
  private ByteBuffer buffer;

  private final IOStatisticsStore counts = Counts.ofOutput();
  private final AtomicLong bytesWritten = counts.getCounterReference(StreamStatisticNames.STREAM_WRITE_BYTES);
  private final Consumer<IOStatistics> gathered;

  CurvineOutputStream(long file, Consumer<IOStatistics> gathered) {
    this.file = file;
    this.gathered = gathered;
  }

  private void check() throws IOException {
    if (closed) {
      throw new ClosedChannelException();
    }
  }

  private ByteBuffer room() throws IOException {
    if (buffer == null) {
      buffer = Buffers.take();
    } else if (!buffer.hasRemaining()) {
      send();
    }
    return buffer;
  }

  private void send() throws IOException {
    if (buffer == null || buffer.position() == 0) {
      return;
    }
    int length = buffer.position();
    // What fails is the file's error from then on; it is not sent twice.
    buffer.clear();
    new Request(Call.WRITE).number(file).number(length).ask(buffer);
  }

  @Override
  public synchronized void write(int value) throws IOException {
    check();
    room().put((byte) value);
    bytesWritten.incrementAndGet();
  }

  @Override
  public synchronized void write(byte[] from, int offset, int length) throws IOException {
    check();
    if (offset < 0 || length < 0 || length > from.length - offset) {
      throw new IndexOutOfBoundsException(offset + " and " + length + " of " + from.length);
    }
    int done = 0;
    while (done < length) {
      ByteBuffer room = room();
      int part = Math.min(length - done, room.remaining());
      room.put(from, offset + done, part);
      done += part;
    }
    bytesWritten.addAndGet(length);
  }

  @Override
  public synchronized void flush() throws IOException {
    check();
    send();
  }

  /** Readers that open the file from now on see what was written. */
  @Override
  public synchronized void hflush() throws IOException {
    check();
    send();
    counts.incrementCounter(StoreStatisticNames.OP_HFLUSH);
    new Request(Call.FLUSH).number(file).flag(false).ask();
  }

  /** And it is on the disks of every worker that has it. */
  @Override
  public synchronized void hsync() throws IOException {
    check();
    send();
    counts.incrementCounter(StoreStatisticNames.OP_HSYNC);
    new Request(Call.FLUSH).number(file).flag(true).ask();
  }

  @Override
  public IOStatistics getIOStatistics() {
    return counts;
  }

  @Override
  public boolean hasCapability(String capability) {
    switch (capability.toLowerCase(java.util.Locale.ROOT)) {
      case StreamCapabilities.HFLUSH:
      case StreamCapabilities.HSYNC:
      case StreamCapabilities.IOSTATISTICS:
        return true;
      default:
        return false;
    }
  }

  @Override
  public synchronized void close() throws IOException {
    if (closed) {
      return;
    }
    closed = true;
    gathered.accept(counts);
    IOException failed = null;
    try {
      send();
    } catch (IOException error) {
      failed = error;
    }
    if (buffer != null) {
      Buffers.give(buffer);
      buffer = null;
    }
    try {
      new Request(Call.CLOSE).number(file).ask();
    } catch (IOException error) {
      failed = failed == null ? error : failed;
    }
    if (failed != null) {
      throw failed;
    }
  }
}
