package io.curvine;

import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;
import java.util.function.IntFunction;
import org.apache.hadoop.fs.ByteBufferPositionedReadable;
import org.apache.hadoop.fs.ByteBufferReadable;
import org.apache.hadoop.fs.CanUnbuffer;
import org.apache.hadoop.fs.FSExceptionMessages;
import org.apache.hadoop.fs.FSInputStream;
import org.apache.hadoop.fs.FileRange;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.StreamCapabilities;
import org.apache.hadoop.fs.statistics.IOStatistics;
import org.apache.hadoop.fs.statistics.IOStatisticsSource;
import org.apache.hadoop.fs.statistics.StreamStatisticNames;
import org.apache.hadoop.fs.statistics.impl.IOStatisticsStore;

/**
 * Reads a file. One call of the native library fills one direct buffer: all of it for who reads on, less for who has just
 * moved. For who reads on, the next buffer is filled meanwhile.
 *
 * <p>Positioned reads have buffers of their own: many threads may read at the same time, and none of them moves the stream.
 */
final class CurvineInputStream extends FSInputStream
    implements ByteBufferReadable, ByteBufferPositionedReadable, CanUnbuffer, StreamCapabilities, IOStatisticsSource {
  private static final int AFTER_SEEK_BYTES = 64 << 10;
  private final long file;
  private final long size;
  private final FileSystem.Statistics statistics;
  private volatile boolean closed;
  private long position;
  /** Bytes of the file from {@code start} on, up to its limit; null if there are none. */
  private ByteBuffer buffer;
  private long start;
  /** What comes behind the buffer, on its way; null if nothing is. */
  private Ahead ahead;

  private final IOStatisticsStore counts = Counts.ofInput();
  private final AtomicLong bytesRead = counts.getCounterReference(StreamStatisticNames.STREAM_READ_BYTES);
  private final AtomicLong reads = counts.getCounterReference(StreamStatisticNames.STREAM_READ_OPERATIONS);
  private final Consumer<IOStatistics> gathered;

  CurvineInputStream(long file, long size, FileSystem.Statistics statistics, Consumer<IOStatistics> gathered) {
    this.file = file;
    this.size = size;
    this.statistics = statistics;
    this.gathered = gathered;
  }

  private void check() throws IOException {
    if (closed) {
      throw new IOException(FSExceptionMessages.STREAM_IS_CLOSED);
    }
  }

  /** A read of a program was answered from the buffer. */
  private void counted(int bytes) {
    statistics.incrementBytesRead(bytes);
    bytesRead.addAndGet(bytes);
    reads.incrementAndGet();
  }

  @Override
  public IOStatistics getIOStatistics() {
    return counts;
  }

  /** How many bytes of the buffer are at a position. */
  private int buffered(long at) {
    if (buffer == null || at < start || at >= start + buffer.limit()) {
      return 0;
    }
    return (int) (start + buffer.limit() - at);
  }

  /** Reads from a position on into the beginning of a direct buffer: how much. */
  private int fill(ByteBuffer into, long at, int length) throws IOException {
    return (int) new Request(Call.READ).number(file).number(at).number(length).ask(into).number();
  }

  /** Fills the buffer from a position on, which is before the end. Says how much is there then. */
  private int fill(long at, int wanted) throws IOException {
    boolean readsOn = buffer == null ? at == 0 : at == start + buffer.limit();
    boolean isLong = readsOn && at > 0;
    if (!tookAhead(at)) {
      if (buffer == null) {
        buffer = Buffers.take();
      }
      int length = readsOn ? Buffers.BYTES : Math.min(Buffers.BYTES, Math.max(wanted, AFTER_SEEK_BYTES));
      buffer.limit(0);
      start = at;
      buffer.limit(fill(buffer, at, length));
    }
    long next = start + buffer.limit();
    if (isLong && next < size && buffer.limit() > 0) {
      ahead = Ahead.begin(next, into -> fill(into, next, Buffers.BYTES));
    }
    return buffer.limit();
  }

  /** Takes what is on its way for the buffer, if it is what is wanted. */
  private boolean tookAhead(long at) {
    if (ahead == null) {
      return false;
    }
    Ahead came = ahead;
    ahead = null;
    ByteBuffer filled = came.start == at ? came.take() : null;
    if (filled == null) {
      came.drop();
      return false;
    }
    if (buffer != null) {
      Buffers.give(buffer);
    }
    buffer = filled;
    start = at;
    return true;
  }

  /** Makes bytes of the file from a position on available in the buffer: how many, or -1 at the end. */
  private int ready(long at, int wanted) throws IOException {
    int there = buffered(at);
    if (there == 0) {
      there = at >= size ? 0 : fill(at, wanted);
    }
    if (there == 0) {
      return -1;
    }
    buffer.position((int) (at - start));
    return there;
  }

  @Override
  public synchronized void seek(long to) throws IOException {
    check();
    if (to < 0) {
      throw new EOFException(FSExceptionMessages.NEGATIVE_SEEK);
    }
    if (to > size) {
      throw new EOFException(FSExceptionMessages.CANNOT_SEEK_PAST_EOF + ": " + to + " of " + size);
    }
    if (to != position) {
      counts.incrementCounter(StreamStatisticNames.STREAM_READ_SEEK_OPERATIONS);
    }
    position = to;
  }

  @Override
  public synchronized long getPos() {
    return position;
  }

  @Override
  public boolean seekToNewSource(long target) {
    return false;
  }

  @Override
  public synchronized int available() throws IOException {
    check();
    return (int) Math.min(Integer.MAX_VALUE, Math.max(0, size - position));
  }

  @Override
  public synchronized int read() throws IOException {
    check();
    if (ready(position, 1) < 0) {
      return -1;
    }
    position++;
    counted(1);
    return buffer.get() & 0xff;
  }

  @Override
  public synchronized int read(byte[] into, int offset, int length) throws IOException {
    check();
    int got = readAt(position, into, offset, length);
    position += Math.max(0, got);
    return got;
  }

  @Override
  public int read(long at, byte[] into, int offset, int length) throws IOException {
    check();
    validatePositionedReadArgs(at, into, offset, length);
    return length == 0 ? 0 : readBeside(at, ByteBuffer.wrap(into, offset, length));
  }

  /** Reads some bytes, at least one, into a buffer: how many, or -1 at the end. Nothing of the stream changes. */
  private int readBeside(long at, ByteBuffer into) throws IOException {
    if (at >= size) {
      return -1;
    }
    int wanted = (int) Math.min(Math.min(into.remaining(), Buffers.BYTES), size - at);
    int got;
    if (into.isDirect()) {
      got = fill(into.slice(), at, wanted);
      into.position(into.position() + got);
    } else {
      ByteBuffer between = wanted <= Buffers.SMALL_BYTES ? Buffers.small() : Buffers.take();
      got = fill(between, at, wanted);
      between.limit(got).position(0);
      into.put(between);
      if (wanted > Buffers.SMALL_BYTES) {
        Buffers.give(between);
      }
    }
    if (got == 0) {
      return -1;
    }
    counted(got);
    return got;
  }

  private int readAt(long at, byte[] into, int offset, int length) throws IOException {
    if (length == 0) {
      return 0;
    }
    int there = ready(at, length);
    if (there < 0) {
      return -1;
    }
    int got = Math.min(there, length);
    buffer.get(into, offset, got);
    counted(got);
    return got;
  }

  @Override
  public synchronized int read(ByteBuffer into) throws IOException {
    check();
    int got = readAt(position, into);
    position += Math.max(0, got);
    return got;
  }

  @Override
  public int read(long at, ByteBuffer into) throws IOException {
    check();
    if (at < 0) {
      throw new EOFException(FSExceptionMessages.NEGATIVE_SEEK);
    }
    return into.hasRemaining() ? readBeside(at, into) : 0;
  }

  private int readAt(long at, ByteBuffer into) throws IOException {
    if (!into.hasRemaining()) {
      return 0;
    }
    if (into.isDirect() && into.remaining() >= Buffers.BYTES && ahead == null && buffered(at) == 0) {
      return readBeside(at, into);
    }
    int there = ready(at, into.remaining());
    if (there < 0) {
      return -1;
    }
    int got = Math.min(there, into.remaining());
    ByteBuffer part = buffer.duplicate();
    part.limit(part.position() + got);
    into.put(part);
    counted(got);
    return got;
  }

  @Override
  public void readFully(long at, ByteBuffer into) throws IOException {
    long next = at;
    while (into.hasRemaining()) {
      int got = read(next, into);
      if (got < 0) {
        throw new EOFException(FSExceptionMessages.EOF_IN_READ_FULLY);
      }
      next += got;
    }
  }

  /** The ranges at the same time, as many as there are threads for. */
  @Override
  public void readVectored(List<? extends FileRange> ranges, IntFunction<ByteBuffer> allocate) throws IOException {
    check();
    Ranges.validate(ranges);
    for (FileRange range : ranges) {
      ByteBuffer into = allocate.apply(range.getLength());
      CompletableFuture<ByteBuffer> data = new CompletableFuture<>();
      range.setData(data);
      Threads.run(() -> {
        try {
          readFully(range.getOffset(), into);
          into.flip();
          data.complete(into);
        } catch (IOException | RuntimeException error) {
          data.completeExceptionally(error);
        }
      });
    }
  }

  @Override
  public synchronized void unbuffer() {
    if (ahead != null) {
      ahead.drop();
      ahead = null;
    }
    if (buffer != null) {
      Buffers.give(buffer);
      buffer = null;
    }
  }

  @Override
  public boolean hasCapability(String capability) {
    switch (capability.toLowerCase(Locale.ROOT)) {
      case StreamCapabilities.READBYTEBUFFER:
      case StreamCapabilities.PREADBYTEBUFFER:
      case StreamCapabilities.UNBUFFER:
      case StreamCapabilities.VECTOREDIO:
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
    unbuffer();
    gathered.accept(counts);
    new Request(Call.CLOSE).number(file).ask();
  }
}
