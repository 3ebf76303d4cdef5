package io.curvine;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.apache.hadoop.conf.Configuration;
import org.junit.Test;

/** The table of keys in the documentation is that of the code. */
public class KeyTest {
  private static final Path README = Paths.get("README.md");
  private static final String HEAD = "| key of core-site.xml | default | what it says |";

  /** {@code UPDATE_RENDERED=1 hadoop/test} writes it anew. */
  @Test
  public void theDocumentationHasEveryKeyWithItsDefault() throws IOException {
    List<String> lines = Files.readAllLines(README, UTF_8);
    int head = lines.indexOf(HEAD);
    assertTrue("README.md has no table of keys", head >= 0);
    int end = head;
    while (end < lines.size() && lines.get(end).startsWith("|")) {
      end++;
    }
    List<String> table = new ArrayList<>(Arrays.asList(HEAD, "|---|---|---|"));
    for (Key key : Key.values()) {
      table.add(key.row());
    }
    if ("1".equals(System.getenv("UPDATE_RENDERED"))) {
      List<String> rendered = new ArrayList<>(lines.subList(0, head));
      rendered.addAll(table);
      rendered.addAll(lines.subList(end, lines.size()));
      Files.write(README, rendered, UTF_8);
    }
    assertEquals(String.join("\n", table), String.join("\n", lines.subList(head, end)));
  }

  @Test
  public void noKeyIsReadThatTheTableLacks() throws IOException {
    List<String> named = new ArrayList<>();
    Pattern key = Pattern.compile("\"fs\\.cv\\.");
    try (Stream<Path> sources = Files.walk(Paths.get("src/main/java"))) {
      for (Path source : sources.filter(Files::isRegularFile).collect(Collectors.toList())) {
        if (!source.endsWith("Key.java") && key.matcher(new String(Files.readAllBytes(source), UTF_8)).find()) {
          named.add(source.toString());
        }
      }
    }
    assertEquals("keys are named in Key.java alone", "[]", named.toString());
  }

  @Test
  public void keysOfTheClientHaveTheNamesAndDefaultsOfItsConfiguration() throws IOException {
    String sample = new String(Files.readAllBytes(Paths.get("../conf/curvine.toml")), UTF_8);
    Matcher client = Pattern.compile("(?ms)^\\[client\\]$(.*?)^\\[").matcher(sample);
    assertTrue(client.find());
    for (Key key : Arrays.asList(Key.CONNECT_TIMEOUT, Key.OPERATION_TIMEOUT)) {
      String name = key.key().substring("fs.cv.".length());
      Matcher row = Pattern.compile("(?m)^#" + name + " = \"(.*)\"$").matcher(client.group(1));
      assertTrue(name, row.find());
      assertTrue(key.row(), key.row().contains("| " + row.group(1) + " |"));
    }
    assertTrue(client.group(1).contains("\n#masters = "));
  }

  @Test
  public void aKeyIsReadAsItsTableSays() {
    Configuration configuration = new Configuration(false);
    assertEquals(4_000, Key.CONNECT_TIMEOUT.milliseconds(configuration));
    assertEquals(128L << 20, Key.BLOCK_SIZE.bytes(configuration));
    configuration.set("fs.cv.connect_timeout", "1500ms");
    configuration.set("fs.cv.block_size", "1g");
    assertEquals(1_500, Key.CONNECT_TIMEOUT.milliseconds(configuration));
    assertEquals(1L << 30, Key.BLOCK_SIZE.bytes(configuration));
    assertEquals("fs.cv.masters.lake", Key.MASTERS_OF.of("lake"));
    assertEquals("fs.cv.original.s3a.impl", Key.ORIGINAL.of("s3a"));
  }
}
