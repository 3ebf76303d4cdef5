package io.curvine.shell;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.Assert.assertEquals;

import io.curvine.contract.CurvineContract;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.apache.commons.io.IOUtils;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.fs.shell.CommandFactory;
import org.apache.hadoop.fs.shell.FsCommand;
import org.junit.After;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/**
 * Every command of {@code hadoop fs}, with what it says and its exit code, as {@code shell/commands.txt} has it. A line
 * that begins with {@code >} is a command; what follows is its output and that of its errors, and {@code = CODE} unless
 * that is 0. The environment's {@code UPDATE_RENDERED=1} has what is said now written there.
 */
public class ShellTest {
  private static final Path SCRIPT = Paths.get("src/test/resources/shell/commands.txt");
  /** Lines of stack traces, and of the list of all commands and options, which each version of Hadoop has another one of. */
  private static final Pattern OF_HADOOP = Pattern.compile("^\\tat |^\\t\\[-|^Usage: hadoop fs \\[generic options\\]$"
      + "|^Generic options |^-(conf|D|fs|jt|files|libjars|archives) <|^The general command |^command \\[");
  @Rule
  public final TemporaryFolder local = new TemporaryFolder();
  private final Configuration configuration = new Configuration();
  private FileSystem fs;
  private String owner;

  @Before
  public void setUp() throws Exception {
    configuration.set("fs.defaultFS", CurvineContract.cluster().toString());
    configuration.set("fs.trash.interval", "60");
    fs = FileSystem.get(configuration);
    org.apache.hadoop.fs.Path directory = new org.apache.hadoop.fs.Path("/shell");
    fs.delete(directory, true);
    fs.mkdirs(directory);
    FileStatus status = fs.getFileStatus(directory);
    owner = status.getOwner() + " " + status.getGroup();
    Files.write(local.getRoot().toPath().resolve("one"), "one\n".getBytes(UTF_8));
    Files.write(local.getRoot().toPath().resolve("two"), "two\n".getBytes(UTF_8));
    Files.write(local.getRoot().toPath().resolve("moved"), "moved\n".getBytes(UTF_8));
  }

  @After
  public void tearDown() throws IOException {
    fs.delete(new org.apache.hadoop.fs.Path("/shell"), true);
    fs.delete(fs.getTrashRoot(new org.apache.hadoop.fs.Path("/shell")), true);
  }

  @Test
  public void everyCommandSaysWhatItSaidBefore() throws Exception {
    List<String> expected = Files.readAllLines(SCRIPT, UTF_8);
    List<String> said = new ArrayList<>();
    TreeSet<String> used = new TreeSet<>();
    for (String line : expected) {
      if (line.startsWith("> ")) {
        String[] words = line.substring(2).split(" ");
        used.add(words[0]);
        said.add(line);
        said.addAll(run(words));
      } else if (line.startsWith("#") || line.isEmpty()) {
        said.add(line);
      }
    }
    if ("1".equals(System.getenv("UPDATE_RENDERED"))) {
      Files.write(SCRIPT, said, UTF_8);
    }
    assertEquals(String.join("\n", expected), String.join("\n", said));
    CommandFactory commands = new CommandFactory(configuration);
    commands.registerCommands(FsCommand.class);
    TreeSet<String> all = new TreeSet<>(Arrays.asList(commands.getNames()));
    all.removeAll(used);
    assertEquals("commands that the script lacks", "[]", all.toString());
  }

  private List<String> run(String[] words) throws Exception {
    String[] arguments = Arrays.stream(words)
        .map(word -> word.replace("LOCAL", local.getRoot().getPath()).replace("HOME", fs.getHomeDirectory().toUri().getPath()))
        .toArray(String[]::new);
    PrintStream out = System.out;
    PrintStream errors = System.err;
    InputStream in = System.in;
    ByteArrayOutputStream said = new ByteArrayOutputStream();
    int code;
    try (PrintStream both = new PrintStream(said, true, "UTF-8")) {
      System.setOut(both);
      System.setErr(both);
      System.setIn(IOUtils.toInputStream("from standard input\n", UTF_8));
      code = new FsShell(configuration).run(arguments);
    } finally {
      System.setOut(out);
      System.setErr(errors);
      System.setIn(in);
    }
    List<String> lines = new ArrayList<>();
    for (String line : said.toString("UTF-8").split("\n")) {
      String known = line.replaceAll("\\s+$", "")
          .replace(local.getRoot().getPath(), "LOCAL")
          .replace(fs.getUri().toString(), "CLUSTER")
          .replace(fs.getHomeDirectory().toUri().getPath(), "HOME")
          .replace(owner, "OWNER GROUP")
          .replaceAll("^# (owner|group): .*", "# $1: ...")
          .replaceAll("[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}", "DATE");
      if (words[0].equals("-df")) {
        known = known.replaceAll("[0-9.]+", "N").replaceAll(" +", " ");
      }
      if (!known.isEmpty() && !OF_HADOOP.matcher(known).find()) {
        lines.add("  " + known);
      }
    }
    if (code != 0) {
      lines.add("  = " + code);
    }
    return lines;
  }
}
